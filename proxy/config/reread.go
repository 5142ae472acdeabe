package config

import (
	"os"
	"slices"
	"sync"
)

// reread is what was made of files, made anew when they have changed. A change of
// which nothing can be made is told of, and what was made before stays in use: a
// certificate and its key are often written one after the other, and by somebody
// who may slip.
type reread[T any] struct {
	files []string
	from  func() (T, error) // reads them
	warn  func(error)

	mu    sync.Mutex
	seen  []os.FileInfo // the files as they were when value was made; nil: it never was
	value T
}

// fixed returns what comes of no file and never changes.
func fixed[T any](value T) *reread[T] {
	return &reread[T]{from: func() (T, error) { return value, nil }}
}

// get returns what the files say now. The error is that of the first time.
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
