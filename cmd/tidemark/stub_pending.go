package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newDemoCommand() *cobra.Command {
	return &cobra.Command{Use: "demo", Short: "Not built in yet", RunE: func(*cobra.Command, []string) error { return errors.New("not built in yet") }}
}
