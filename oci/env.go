package oci

import "strings"

// defaultPath is what a shell finds its programs by when the image says
// nothing.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environ is an environment in order: a variable that is set again keeps its
// place and takes the new value.
type environ struct {
	list []string
	at   map[string]int
}

func (e *environ) set(key, value string) {
	if i, ok := e.at[key]; ok {
		e.list[i] = key + "=" + value
		return
	}
	if e.at == nil {
		e.at = map[string]int{}
	}
	e.at[key] = len(e.list)
	e.list = append(e.list, key+"="+value)
}

func (e *environ) has(key string) bool { _, ok := e.at[key]; return ok }

// env builds the environment: defaults, then the image's, then the config's.
// HOME comes from the image's passwd unless somebody set it, because what runs
// next, exec probes included, has nobody else to ask.
func (b *builder) env() ([]string, error) {
	var e environ
	e.set("PATH", defaultPath)
	if b.in.Config.GetTty() {
		e.set("TERM", "xterm")
	}
	if name, err := b.hostname(); err != nil {
		return nil, err
	} else if name != "" {
		e.set("HOSTNAME", name)
	}
	for _, kv := range b.in.Image.Config.Env {
		// Images exist with a variable that has no '='; others drop it too.
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" && !strings.ContainsRune(kv, 0) {
			e.set(k, v)
		}
	}
	for i, kv := range b.in.Config.GetEnvs() {
		field := indexed("envs", i)
		switch k := kv.GetKey(); {
		case k == "":
			return nil, badContainer(field+".key", "is empty")
		case strings.ContainsAny(k, "=\x00"):
			return nil, badContainer(field+".key", "%q holds '=' or a NUL byte", k)
		case strings.ContainsRune(string(kv.GetValue()), 0):
			return nil, badContainer(field+".value", "contains a NUL byte")
		default:
			e.set(k, string(kv.GetValue()))
		}
	}
	if !e.has("HOME") {
		e.set("HOME", b.home)
	}
	return e.list, nil
}

func (b *builder) hostname() (string, error) {
	if name := b.in.PodSpec.Hostname; name != "" {
		return name, nil
	}
	return Hostname(b.in.Pod, b.in.NodeName)
}
