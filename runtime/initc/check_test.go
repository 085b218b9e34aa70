package initc_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// verdicts asks the C side about many plans in one process: the role check reads descriptor 3 and following.
func verdicts(t *testing.T, program string, plans [][]byte) string {
	t.Helper()
	cmd := exec.Command(program, "check")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	for _, p := range plans {
		f := memfd(t, "plan", p)
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	out, err := cmd.Output()
	want := 0
	if bytes.IndexByte(out, '-') >= 0 {
		want = 70
	}
	if code := cmd.ProcessState.ExitCode(); code != want || len(out) != len(plans) {
		t.Fatalf("%s check: %v, exit status %d, want %d; %d verdicts for %d plans\n%s", program, err, code, want, len(out), len(plans), stderr.String())
	}
	return string(out)
}

// mutate damages an encoding where it hurts: headers, op fields and lengths more often than string bytes.
func mutate(r *rand.Rand, good []byte) []byte {
	b := bytes.Clone(good)
	for range 1 + r.IntN(3) {
		at := r.IntN(len(b))
		if ops := 24 + 112*int(binary.LittleEndian.Uint32(good[8:])); r.IntN(4) > 0 {
			at = r.IntN(min(ops, len(b)))
		}
		switch r.IntN(5) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
		case 1:
			b[at] = byte(r.IntN(256))
		case 2:
			if at &^= 3; at+4 <= len(b) {
				edge := []uint32{0, 1, 23, 24, 1<<32 - 1, 1 << 31, 65535, 65536, uint32(len(b)), uint32(len(b) - 1), uint32(len(b) + 1)}
				binary.LittleEndian.PutUint32(b[at:], edge[r.IntN(len(edge))])
			}
		case 3:
			if b = b[:at]; len(b) >= 20 && r.IntN(2) > 0 { // cut, with a header that agrees
				binary.LittleEndian.PutUint32(b[16:], uint32(len(b)))
				b[len(b)-1] = 0
			}
			if len(b) == 0 {
				return b
			}
		case 4:
			b = append(b, bytes.Repeat([]byte{byte(r.IntN(2))}, r.IntN(9))...)
			if len(b) >= 20 {
				binary.LittleEndian.PutUint32(b[16:], uint32(len(b)))
			}
		}
	}
	return b
}

func agree(t *testing.T, program string, seed uint64, rounds int) {
	t.Helper()
	c := newContainer("/").mounts().finish("true")
	good, err := c.Encode()
	must(t, err)
	small, err := plan.New().Encode()
	must(t, err)
	r := rand.New(rand.NewPCG(seed, 0))
	count := map[byte]int{}
	for range rounds {
		plans := [][]byte{good, small, {}, nil}
		for len(plans) < 250 {
			plans = append(plans, mutate(r, plans[r.IntN(2)]))
		}
		for i, v := range []byte(verdicts(t, program, plans)) {
			_, err := plan.Decode(plans[i])
			if (err == nil) != (v == '+') {
				t.Errorf("plan %x…: the interpreter says %c, Decode says %v", plans[i][:min(len(plans[i]), 64)], v, err)
			}
			count[v]++
		}
	}
	t.Logf("seed %d: %d accepted, %d refused", seed, count['+'], count['-'])
	if count['+'] < rounds*10 || count['-'] < rounds*10 {
		t.Errorf("the mutations are one-sided")
	}
}

// TestCheckAgreesWithDecode feeds damaged plans to both readers of the encoding.
func TestCheckAgreesWithDecode(t *testing.T) { agree(t, helper, 1, 20) }

// TestCheckSanitized does the same with a build in which every read and every computation is checked.
func TestCheckSanitized(t *testing.T) {
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("there is no C compiler: apt-get install gcc")
	}
	program := filepath.Join(t.TempDir(), "check")
	build := exec.Command("cc", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
		"-x", "c", "-o", program, "init.c", "-")
	build.Stdin = strings.NewReader("int main(void) { return 0; }\n")
	if out, err := build.CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("cannot find -lasan")) || bytes.Contains(out, []byte("libasan")) {
			t.Skipf("the compiler has no sanitizer library: %s", out)
		}
		t.Fatalf("build: %v\n%s", err, out)
	}
	agree(t, program, 2, 4)
}

// TestMalformedPlanIsRefusedBeforeAnything: nothing of a plan runs unless all of it is sound.
func TestMalformedPlanIsRefusedBeforeAnything(t *testing.T) {
	p := plan.New()
	p.Add(plan.Text(plan.Hostname, "changed"), plan.Bare(plan.Exit))
	good, err := p.Encode()
	must(t, err)
	for _, tc := range []struct {
		name   string
		damage func(b []byte)
		op     uint32
	}{
		{"header", func(b []byte) { b[0]++ }, ^uint32(0)},
		{"unknown kind", func(b []byte) { b[24+112+4] = 200 }, 1},
		{"op of the parent's", func(b []byte) { b[24+4] = byte(plan.CgroupCreate) }, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := bytes.Clone(good)
			tc.damage(b)
			par := newParent(t, p)
			par.flags = 0
			par.startRaw(b)
			bad, op := uint32(0), uint32(0)
			state, err := par.process.Wait()
			must(t, err)
			bad, op = par.page.Load32(plan.ProgressAtBad), par.page.Load32(plan.ProgressAtOp)
			if state.ExitCode() != 70 || bad != 1 || op != tc.op {
				t.Errorf("exit status %d, bad %d, op %d; want 70, 1, %d", state.ExitCode(), bad, op, tc.op)
			}
		})
	}
	if name, _ := os.Hostname(); name == "changed" {
		t.Error("an op of a malformed plan was carried out")
	}
}
