package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/oci"
	"github.com/cri-mini/cri-mini/runtime/compile"
	"github.com/cri-mini/cri-mini/runtime/host"
)

// showPlan prints what a pod, and a container in it, would do on this machine. The files are those of crictl runp and
// crictl create. No image is opened: its layers are shown by its name.
func showPlan(ctx context.Context, args []string) error {
	c, rest, err := parse("plan", args, 2)
	if err != nil {
		return err
	}
	if len(rest) < 1 {
		return errors.New("plan: give POD.json and perhaps CONTAINER.json, as for crictl runp and crictl create")
	}
	facts, err := host.Probe()
	if err != nil {
		return err
	}
	if _, err := chooseDriver(ctx, c, &facts); err != nil {
		return err
	}
	o := compile.Options{ID: "POD", Facts: facts, RunDir: c.RunDir, PrivateDir: filepath.Join(c.RunDir, "pods"), Stage: filepath.Join(c.RunDir, "stage"), Seccomp: compileSeccomp}
	pod := &criapi.PodSandboxConfig{}
	if err := readJSON(rest[0], pod); err != nil {
		return err
	}
	profile, err := seccompFile(oci.PodSeccompPath(pod))
	if err != nil {
		return err
	}
	spec, err := oci.Pod(oci.PodInput{ID: "POD", Config: pod, RunDir: c.RunDir, Facts: facts, SeccompProfile: profile})
	if err != nil {
		return err
	}
	p, err := compile.Pod(spec, o)
	if err != nil {
		return err
	}
	fmt.Printf("run pod sandbox %s\n%s", pod.GetMetadata().GetName(), p)
	if len(rest) == 1 {
		return nil
	}
	container := &criapi.ContainerConfig{}
	if err := readJSON(rest[1], container); err != nil {
		return err
	}
	return containerPlan(c, o, pod, spec, container)
}

func containerPlan(c config, o compile.Options, pod *criapi.PodSandboxConfig, podSpec *specs.Spec, container *criapi.ContainerConfig) error {
	image := &ispec.Image{}
	if len(container.GetCommand()) == 0 {
		image.Config.Entrypoint = []string{"ENTRYPOINT"} // of the image, which is not opened
	}
	volumes := map[int]oci.Volume{}
	for i, m := range container.GetMounts() {
		volumes[i] = oci.Volume{Layers: []string{"layers of " + m.GetImage().GetImage(), filepath.Join(c.StateDir, "empty")}}
	}
	profile, err := seccompFile(oci.SeccompPath(container))
	if err != nil {
		return err
	}
	spec, err := oci.Container(oci.ContainerInput{
		ID: "CONTAINER", PodID: "POD", Pod: pod, Config: container, Image: image, RunDir: c.RunDir, Rootfs: o.Stage, Facts: o.Facts, PodSpec: podSpec, Volumes: volumes,
		SeccompProfile: profile,
	})
	if err != nil {
		return err
	}
	dir := filepath.Join(c.RunDir, "pods/POD/c/CONTAINER")
	layer := filepath.Join(c.StateDir, "containers/CONTAINER")
	o.ID, o.Bundle = "CONTAINER", dir
	o.Rootfs = compile.Rootfs{Lower: []string{"layers of " + container.GetImage().GetImage(), filepath.Join(c.StateDir, "skeleton")}, Upper: layer + "/upper", Work: layer + "/work"}
	o.Stdio = compile.Stdio{Dir: dir, Stdin: container.GetStdin(), StdinOnce: container.GetStdinOnce()}
	p, err := compile.Container(spec, o)
	if err != nil {
		return err
	}
	fmt.Printf("start container %s\n%s", container.GetMetadata().GetName(), p)
	return nil
}

// seccompFile reads the profile that a config names, if it does.
func seccompFile(path string, err error) ([]byte, error) {
	if err != nil || path == "" {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read seccomp profile: %w", err)
	}
	return b, nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
