// Command tidemark brings Kafka topics into order of event time.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

func main() { os.Exit(execute()) }

// execute runs the command that the arguments name, and returns the exit code.
func execute() int {
	root := newRootCommand()
	started := false
	tidy(root, &started)
	cmd, err := root.ExecuteC()
	if err != nil && !started {
		err = usageError(cmd, err)
	}
	report(os.Stderr, err)
	return exitCode(err)
}

func newRootCommand() *cobra.Command {
	cobra.EnableCommandSorting = false
	root := newRunCommand()
	root.Use = "tidemark"
	root.Short = "Bring Kafka topics into order of event time"
	root.Long = "Tidemark reads Kafka topics and republishes their records in order of event time.\nWithout a command it does what `tidemark run` does."
	root.Args = knownCommand
	root.Version = thisBuild().Version
	root.SetVersionTemplate(thisBuild().String() + "\n")
	root.AddCommand(newRunCommand(), newDemoCommand(), newVerifyCommand(), newRepairCommand(), newPositionCommand(), newCheckCommand(), newConfigCommand(), newVersionCommand())
	root.SetHelpCommand(newHelpCommand())
	root.SuggestionsMinimumDistance = 2
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetUsageTemplate(usageTemplate)
	return root
}

// tidy makes a command refuse arguments unless it says otherwise, and notes
// when it starts: an error before that is one of usage.
func tidy(cmd *cobra.Command, started *bool) {
	if cmd.Args == nil {
		cmd.Args = noArguments
	}
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		tidy(sub, started)
	}
	cmd.InitDefaultHelpFlag()
	cmd.Flags().Lookup("help").Usage = "show this help"
	if cmd.InitDefaultVersionFlag(); cmd.Version != "" {
		cmd.Flags().Lookup("version").Usage = "show the version"
	}
}

func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	return nil
}

func knownCommand(parent *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q", args[0])
	if near := parent.SuggestionsFor(args[0]); len(near) > 0 {
		return &exitError{exitUsage, err, "did you mean " + strings.Join(near, " or ") + "?"}
	}
	return err
}

func usageError(cmd *cobra.Command, err error) error {
	var known *exitError
	if errors.As(err, &known) {
		return err
	}
	hint, err := explainUsage(err)
	if hint == "" {
		hint = fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	}
	return &exitError{exitUsage, err, hint}
}

// explainUsage says in our words what the library that reads flags says in terms of Go, and
// what to write instead.
func explainUsage(err error) (hint string, explained error) {
	if wrong, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		kind, like := flagKind(wrong.GetFlag().Value.Type())
		return like, fmt.Errorf("--%s: %q is not %s", wrong.GetFlag().Name, wrong.GetValue(), kind)
	}
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if key, ok := config.Variable(unknown.GetSpecifiedName()); ok {
			return "it is set by an environment variable: " + key + "; see `tidemark config --docs`", err
		}
	}
	return "", err
}

// flagKind says what a flag takes, and an example where one helps.
func flagKind(goType string) (kind, like string) {
	switch goType {
	case "duration":
		return "a duration", "like 90s, 10m or 1h30m"
	case "uint64":
		return "a whole number from 0 on", ""
	case "int64":
		return "a whole number", ""
	case "bool":
		return "true or false", ""
	}
	return "a " + goType, ""
}

// newHelpCommand is for those who type "help": it is not in the list, for
// --help says the same.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "help [command]",
		Short:  "Show the help of a command",
		Hidden: true,
		Args:   cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, _ := cmd.Root().Find(args)
			if err := knownCommand(cmd.Root(), rest); err != nil {
				return usageError(cmd.Root(), err)
			}
			return target.Help()
		},
	}
}
