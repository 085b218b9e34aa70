package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"

	"github.com/cri-mini/cri-mini/netns/bridge"
)

// builtinName is the network's name in the built-in conflist; no conflist of the
// user's should have it too, libcni keeps results by name.
const builtinName = "cri-mini-builtin"

// ErrNoConfig is wrapped by Prepare in mode cni when ConfDir has no valid file.
var ErrNoConfig = errors.New("no network configuration")

// choice is how a pod would be attached now.
type choice struct {
	mode string
	list *libcni.NetworkConfigList
	file string // "" for the built-in network
}

// current chooses the network for the next pod. In mode auto the first valid
// conflist is remembered for good: a node whose CNI daemon is being upgraded has
// no file for a while, and its pods must wait rather than get addresses that
// the cluster does not know.
func (n *Network) current() (choice, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cfg.Mode == ModeBuiltin {
		return n.builtinChoice(n.subnets())
	}
	list, file, err := findConf(n.cfg.ConfDir)
	if err != nil {
		if n.cfg.Mode == ModeAuto && !n.state.CNI {
			if !errors.Is(err, ErrNoConfig) {
				n.log.Warn("built-in network is used", "err", err)
			}
			return n.builtinChoice(n.subnets())
		}
		return choice{}, err
	}
	if n.cfg.Mode == ModeAuto && !n.state.CNI {
		s := n.state
		s.CNI = true
		if err := s.save(n.cfg.StateDir); err != nil {
			return choice{}, err
		}
		n.state = s
		n.log.Info("network configuration found, leaving the built-in network", "obj", file)
	}
	return choice{mode: ModeCNI, list: list, file: file}, nil
}

// builtinChoice makes the built-in conflist. The networks are in it because DEL
// and CHECK must see those of ADD.
func (n *Network) builtinChoice(subnets []netip.Prefix) (choice, error) {
	plugin := map[string]any{
		"type": bridge.Type, "bridge": n.cfg.Bridge, "subnets": subnets,
		"capabilities": map[string]bool{"portMappings": true, "bandwidth": true},
	}
	data, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": builtinName, "plugins": []any{plugin},
	})
	if err != nil {
		return choice{}, err
	}
	list, err := libcni.NetworkConfFromBytes(data)
	return choice{mode: ModeBuiltin, list: list}, err
}

// findConf returns the first valid file of dir in lexical order: .conflist, or a
// single plugin's .conf or .json. If all are invalid the error says why for each.
func findConf(dir string) (*libcni.NetworkConfigList, string, error) {
	files, err := libcni.ConfFiles(dir, []string{".conflist", ".conf", ".json"}) // sorted, as ReadDir is
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("read network configuration: %w", err)
	}
	var errs []error
	for _, f := range files {
		list, err := loadConf(f)
		if err == nil {
			return list, f, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", f, err))
	}
	if len(errs) > 0 {
		return nil, "", fmt.Errorf("no valid network configuration in %s: %w", dir, errors.Join(errs...))
	}
	return nil, "", fmt.Errorf("%w in %s", ErrNoConfig, dir)
}

func loadConf(file string) (*libcni.NetworkConfigList, error) {
	if filepath.Ext(file) == ".conflist" {
		list, err := libcni.NetworkConfFromFile(file)
		if err != nil {
			return nil, err
		}
		return inline(list)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	conf, err := libcni.NetworkPluginConfFromBytes(data)
	if err != nil {
		return nil, err
	}
	if conf.Network.Name == "" {
		return nil, errors.New("no name")
	}
	return libcni.ConfListFromConf(conf) //nolint:staticcheck // nodes still have single .conf files, and kubelet's users expect them to work
}

// inline makes list.Bytes complete: libcni also loads plugins from files in a
// directory named after the network, which the record must not depend on.
func inline(list *libcni.NetworkConfigList) (*libcni.NetworkConfigList, error) {
	if list.Name == "" {
		return nil, errors.New("no name")
	}
	bare, err := libcni.NetworkConfFromBytes(list.Bytes)
	if err != nil {
		return nil, err
	}
	if len(bare.Plugins) == len(list.Plugins) {
		return list, nil
	}
	raw := map[string]any{}
	if err := json.Unmarshal(list.Bytes, &raw); err != nil {
		return nil, err
	}
	plugins := make([]json.RawMessage, len(list.Plugins))
	for i, p := range list.Plugins {
		plugins[i] = p.Bytes
	}
	raw["plugins"], raw["loadOnlyInlinedPlugins"] = plugins, true
	data, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	return libcni.NetworkConfFromBytes(data)
}
