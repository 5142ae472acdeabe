package preflight

import (
	"log/slog"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// WarnInClear warns of a login that whoever sees the packets can repeat.
func WarnInClear(cfg config.Config, log *slog.Logger) {
	if cfg.InClear() {
		log.Warn("the password or token goes to the brokers unencrypted", "hint", "set TIDEMARK_TLS=true, and take the port of their SASL_SSL listener")
	}
	if cfg.RegistryInClear() {
		log.Warn("the password or token goes to the schema registry unencrypted", "hint", "use https:// in TIDEMARK_SCHEMA_REGISTRY")
	}
}
