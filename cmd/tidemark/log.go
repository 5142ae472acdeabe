package main

import (
	"io"
	"log/slog"
	"os"

	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

func newLogger(f *os.File, cfg config.Config) *slog.Logger {
	terminal := term.IsTerminal(int(f.Fd()))
	return slog.New(newLogHandler(f, cfg, terminal, terminal && os.Getenv("NO_COLOR") == ""))
}

// newBarLogger logs beside a progress bar on a terminal.
func newBarLogger(bar io.Writer, cfg config.Config) *slog.Logger {
	return slog.New(newLogHandler(bar, cfg, true, os.Getenv("NO_COLOR") == ""))
}

func newLogHandler(w io.Writer, cfg config.Config, terminal, color bool) slog.Handler {
	level := cfg.LogLevel.Level()
	if cfg.LogFormat == config.LogJSON || cfg.LogFormat == config.LogAuto && !terminal {
		return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})
	}
	return tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: "15:04:05.000", NoColor: !color})
}
