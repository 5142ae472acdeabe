package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// The exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2 // usage or configuration
	exitNotHeld = 3 // what was to be checked does not hold
)

// exitError is an error with an exit code and, if there is one, a hint how to fix it.
// Without err nothing more is printed: the command has printed everything.
type exitError struct {
	code int
	err  error
	hint string
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func (e *exitError) ExitCode() int { return e.code }

func (e *exitError) Hint() string {
	if e.hint == "" {
		return hint(e.err)
	}
	return e.hint
}

// exitCode returns the code that err carries, and exitFailed if it has none.
func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return exitFailed
}

func hint(err error) string {
	var hinting interface{ Hint() string }
	if errors.As(err, &hinting) {
		return hinting.Hint()
	}
	return ""
}

// report prints err with its hint; a faulty configuration fault by fault.
func report(w io.Writer, err error) {
	var faulty *config.Error
	if errors.As(err, &faulty) {
		for _, fault := range faulty.Faults {
			reportOne(w, fault)
		}
		return
	}
	if err != nil && err.Error() != "" {
		reportOne(w, err)
	}
}

func reportOne(w io.Writer, err error) {
	fmt.Fprintf(w, "tidemark: %v\n", err)
	if h := hint(err); h != "" {
		fmt.Fprintf(w, "hint: %s\n", h)
	}
}
