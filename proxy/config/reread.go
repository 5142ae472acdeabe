package config

import (
	"os"
	"slices"
	"sync"
)

// reread is a value loaded from files, and loaded again when they change. If the changed
// files cannot be used, warn is called, and the value stays as it was: a certificate and its
// key are often written one after the other, and by hand.
type reread[T any] struct {
	files []string
	from  func() (T, error) // loads the value
	warn  func(error)

	mu    sync.Mutex
	seen  []os.FileInfo // the files when value was loaded; nil: it never was
	value T
}

// fixed returns a value that comes from no file and never changes.
func fixed[T any](value T) *reread[T] {
	return &reread[T]{from: func() (T, error) { return value, nil }}
}

// get returns the value for the files as they are now. It fails only if it never succeeded.
func (r *reread[T]) get() (T, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, err := r.look()
	if err == nil && r.seen != nil && slices.EqualFunc(now, r.seen, unchanged) {
		return r.value, nil
	}
	if err == nil {
		var value T
		if value, err = r.from(); err == nil {
			r.value, r.seen = value, now
			return value, nil
		}
	}
	if r.seen == nil {
		return r.value, err
	}
	r.warn(err)
	return r.value, nil
}

func (r *reread[T]) look() ([]os.FileInfo, error) {
	all := make([]os.FileInfo, len(r.files))
	for i, file := range r.files {
		var err error
		if all[i], err = os.Stat(file); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// unchanged compares what Kubernetes changes when it updates a Secret, which is the
// file behind a link, and what others do, who write into it.
func unchanged(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
