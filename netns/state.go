package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// state is what the network remembers besides leases: StateDir/state.json.
type state struct {
	// CNI is set when mode auto has seen its first conflist.
	CNI bool `json:"cni,omitempty"`
	// PodCIDRs is what SetPodCIDR was given last.
	PodCIDRs []netip.Prefix `json:"podCIDRs,omitempty"`
	// ULA is the network that pods have IPv6 addresses from where no pod CIDR is set.
	ULA netip.Prefix `json:"ula,omitzero"`
	// Sysctls are the host's settings that the built-in network has turned on.
	Sysctls []string `json:"sysctls,omitempty"`
}

func loadState(dir string) (state, error) {
	var s state
	path := filepath.Join(dir, "state.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return s, fmt.Errorf("read network state %s: %w; remove the file to begin anew", path, err)
	}
	return s, nil
}

// save replaces the file by rename, synced: it is written a few times in a
// node's life and must not come back empty after a power cut.
func (s state) save(dir string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save network state: %w", err)
	}
	tmp := filepath.Join(dir, ".state.json")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("save network state: %w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, filepath.Join(dir, "state.json"))
	}
	if err != nil {
		return fmt.Errorf("save network state: %w", err)
	}
	return nil
}
