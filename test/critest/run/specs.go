package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// runSpecs runs critest to its end, prints the outcome, and returns an error
// if it is not the expected one. The daemon is watched if there is one: with
// it gone, every further spec would wait for its timeout.
func runSpecs(ctx context.Context, j job, daemon *child) error {
	reportFile := filepath.Join(j.Report, "report.json")
	if err := os.Remove(reportFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	began := time.Now()
	err := runCritest(ctx, j, reportFile, daemon)
	wall := time.Since(began)
	data, readErr := os.ReadFile(reportFile)
	if readErr != nil {
		return errors.Join(fmt.Errorf("run critest: no report; see %s", filepath.Join(j.Report, "critest.log")), err)
	}
	var reports []types.Report
	if err := json.Unmarshal(data, &reports); err != nil {
		return fmt.Errorf("read report %s: %w", reportFile, err)
	}
	return conclude(j, readOutcomes(reports), wall)
}

func runCritest(ctx context.Context, j job, reportFile string, daemon *child) error {
	args := []string{
		"--runtime-endpoint", j.endpoint(), "--image-endpoint", j.endpoint(), "--ginkgo.no-color",
		"--ginkgo.json-report", reportFile, "--ginkgo.junit-report", filepath.Join(j.Report, "junit.xml"),
		"--ginkgo.timeout", j.Timeout.String(), "--ginkgo.grace-period", "5s",
	}
	if j.Parallel > 1 { // with 1, ginkgo mistakes the flag for go test's
		args = append(args, "--parallel", fmt.Sprint(j.Parallel))
	}
	if j.WebSocket {
		args = append(args, "--websocket-exec", "--websocket-attach", "--websocket-portforward")
	}
	if j.Focus != "" {
		args = append(args, "--ginkgo.focus", j.Focus)
	}
	cmd := exec.CommandContext(ctx, j.Tools.path("critest"), args...)
	// critest takes its temporary directories, some of them mounted, from
	// TMPDIR, and with --parallel the ginkgo command from PATH.
	cmd.Env = append(os.Environ(), "TMPDIR="+j.tmp(), "PATH="+j.Tools.Bin+":"+os.Getenv("PATH"))
	cmd.Dir = j.tmp()
	// An interrupted critest still writes its report.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	critest, err := startChild("critest", filepath.Join(j.Report, "critest.log"), cmd)
	if err != nil {
		return err
	}
	if daemon != nil {
		select {
		case <-daemon.ended:
			fmt.Printf("FAIL: the daemon ended during the run: %v; see %s\n", daemon.err, j.daemonLog())
			_ = critest.cmd.Process.Signal(syscall.SIGINT)
			time.AfterFunc(30*time.Second, func() { _ = critest.cmd.Process.Kill() })
		case <-critest.ended:
		}
	}
	<-critest.ended
	return critest.err
}
