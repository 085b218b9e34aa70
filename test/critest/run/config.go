package main

import (
	"path/filepath"
	"strings"
)

// defaultConfig is cri-mini's configuration for the run. All keys of the
// daemon that this harness depends on are here.
const defaultConfig = `run_dir = "{run}"
state_dir = "{state}"
socket = "{socket}"

[registry]
config_dir = "{certs}"

[network]
mode = "builtin"
`

func (j job) socket() string    { return filepath.Join(j.RunDir, "cri-mini.sock") }
func (j job) config() string    { return filepath.Join(j.Scratch, "config.toml") }
func (j job) certs() string     { return filepath.Join(j.Scratch, "certs.d") }
func (j job) tmp() string       { return filepath.Join(j.Scratch, "tmp") }
func (j job) crictl() string    { return j.Tools.path("crictl") }
func (j job) daemonLog() string { return filepath.Join(j.Report, "daemon.log") }

// endpoint is what clients connect to.
func (j job) endpoint() string {
	if j.Endpoint != "" {
		return j.Endpoint
	}
	return "unix://" + j.socket()
}

// fill replaces the placeholders in a configuration or a command's word.
func (j job) fill(text string) string {
	return strings.NewReplacer(
		"{run}", j.RunDir, "{state}", filepath.Join(j.Scratch, "state"), "{socket}", j.socket(),
		"{certs}", j.certs(), "{config}", j.config(),
	).Replace(text)
}
