package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

func newConfigCommand() *cobra.Command {
	var docs, asJSON bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration that is in effect",
		Long: `Show the configuration that ` + "`tidemark run`" + ` would use, defaults included and secrets
masked, or everything that is wrong with it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if docs && asJSON {
				return &exitError{exitUsage, errors.New("--docs and --json exclude each other"), ""}
			}
			if docs {
				_, err := io.WriteString(cmd.OutOrStdout(), config.Docs())
				return err
			}
			cfg, err := config.Load(os.Environ())
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), cfg.Effective())
			}
			return writeSettings(cmd.OutOrStdout(), cfg.Effective())
		},
	}
	cmd.Flags().BoolVar(&docs, "docs", false, "show the reference of all settings, as Markdown")
	cmd.Flags().BoolVar(&asJSON, "json", false, "show the settings as JSON")
	return cmd
}

// writeSettings marks in a second column what nobody set.
func writeSettings(w io.Writer, settings []config.Setting) error {
	width := 0
	for _, s := range settings {
		if s.Note != "" {
			width = max(width, len(s.Key+"="+s.Value))
		}
	}
	for _, s := range settings {
		line := s.Key + "=" + s.Value
		if s.Note != "" {
			line = fmt.Sprintf("%-*s  # %s", width, line, s.Note)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
