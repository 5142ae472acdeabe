package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Fault is one thing wrong with the configuration. It never holds the value of
// a secret.
type Fault struct {
	Key     string // the variable, TIDEMARK_ included
	Problem string
	hint    string
}

// Error returns the variable and what is wrong with it.
func (f Fault) Error() string { return f.Key + ": " + f.Problem }

// Hint says what to write instead. It may be empty.
func (f Fault) Hint() string { return f.hint }

// Error is every fault of a configuration, in the order of the reference.
type Error struct {
	Faults []Fault
}

// Error returns a line for every fault, each followed by its hint.
func (e *Error) Error() string {
	var lines []string
	for _, f := range e.Faults {
		lines = append(lines, f.Error())
		if f.hint != "" {
			lines = append(lines, "hint: "+f.hint)
		}
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the faults one by one.
func (e *Error) Unwrap() []error {
	errs := make([]error, len(e.Faults))
	for i, f := range e.Faults {
		errs[i] = f
	}
	return errs
}

// ExitCode is that of a process which is configured wrongly.
func (e *Error) ExitCode() int { return 2 }

// problem is a fault that does not know yet which variable it belongs to.
type problem struct{ text, hint string }

func (p problem) Error() string { return p.text }
func (p problem) Hint() string  { return p.hint }

// faults collects. It remembers whose values could not be read at all, so that
// no second fault is reported about what is only missing.
type faults struct {
	list   []Fault
	unread map[string]bool
}

func newFaults() *faults { return &faults{unread: map[string]bool{}} }

func (f *faults) add(key, problem, hint string) {
	f.list = append(f.list, Fault{key, problem, hint})
}

// broken records that the variable has no value to go on with.
func (f *faults) broken(key string, err error) {
	var hinted interface{ Hint() string }
	hint := ""
	if errors.As(err, &hinted) {
		hint = hinted.Hint()
	}
	f.add(key, err.Error(), hint)
	f.unread[key] = true
}

// read reports whether all these variables have values that can be judged.
func (f *faults) read(keys ...string) bool {
	return !slices.ContainsFunc(keys, func(key string) bool { return f.unread[key] })
}

// parsing takes over the faults of the parsers. Only their own words get
// through: the library's may quote the value of a secret.
func (f *faults) parsing(err error) {
	var all env.AggregateError
	errors.As(err, &all)
	for _, err := range all.Errors {
		var p env.ParseError
		if !errors.As(err, &p) {
			panic(fmt.Sprintf("config: the fields of Config cannot be read: %T", err))
		}
		key := keyOfField[p.Name]
		if joined, ok := p.Err.(interface{ Unwrap() []error }); ok {
			for _, err := range joined.Unwrap() {
				f.broken(key, err)
			}
			continue
		}
		f.broken(key, p.Err)
	}
}

// err returns what was collected, or nil.
func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	place := func(fault Fault) int {
		i := slices.IndexFunc(settings, func(s setting) bool { return s.key == fault.Key })
		if i < 0 {
			return len(settings) // an unknown variable
		}
		return i
	}
	slices.SortStableFunc(f.list, func(a, b Fault) int { return place(a) - place(b) })
	return &Error{f.list}
}
