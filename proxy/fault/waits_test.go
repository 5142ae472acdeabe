package fault

import (
	"context"
	"testing"
	"time"
)

// The innermost of what takes long is told of, and what goes on is not the same wait.
func TestWaiting(t *testing.T) {
	w := new(Waits)
	now := time.Now()
	outer := w.Begin(Wait{What: "outer", After: time.Second})
	inner := w.Begin(Wait{What: "inner", After: time.Hour})
	if it, late := w.Overdue(now.Add(2 * time.Second)); !late || it.What != "outer" {
		t.Errorf("%q is overdue: %v", it.What, late)
	}
	if it, due := w.Due(now.Add(2 * time.Second)); !due || it.What != "outer" {
		t.Errorf("%q is due: %v", it.What, due)
	}
	if it, due := w.Due(now.Add(3 * time.Second)); due {
		t.Errorf("%q is due again", it.What)
	}
	w.Answered(context.DeadlineExceeded)
	if it, due := w.Due(now.Add(2 * time.Hour)); !due || it.What != "inner" || it.Err == nil {
		t.Errorf("%q is due: %v, with %v", it.What, due, it.Err)
	}
	inner()
	if _, late := w.Overdue(time.Now()); late {
		t.Error("the outer wait did not begin anew")
	}
	outer()
	if _, late := w.Overdue(time.Now().Add(time.Hour)); late {
		t.Error("something is waited for after all")
	}
}
