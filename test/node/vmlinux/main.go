// Command vmlinux takes the kernel proper, an ELF file, out of a bzImage: QEMU
// starts it by its PVH entry, and the machine that it emulates need not decompress
// it, which takes it many seconds.
//
//	vmlinux BZIMAGE OUT
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// packings are the ways of kernels' images, each with the bytes it begins with and
// the program that undoes it.
var packings = []struct {
	magic   []byte
	program string
}{
	{[]byte{0x28, 0xb5, 0x2f, 0xfd}, "zstd"},
	{[]byte{0xfd, '7', 'z', 'X', 'Z', 0}, "xz"},
	{[]byte{0x1f, 0x8b, 8}, "gzip"},
	{[]byte{2, 0x21, 0x4c, 0x18}, "lz4"},
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: vmlinux BZIMAGE OUT")
		os.Exit(2)
	}
	if err := extract(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "vmlinux:", err)
		os.Exit(1)
	}
}

func extract(from, to string) error {
	image, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	elf, err := find(image)
	if err != nil {
		return fmt.Errorf("read kernel %s: %w", from, err)
	}
	return os.WriteFile(to, elf, 0o644)
}

// find tries every place that may be the beginning of a packed kernel: a few bytes
// of magic turn up by chance too.
func find(image []byte) ([]byte, error) {
	for _, p := range packings {
		for rest := image; ; rest = rest[1:] {
			at := bytes.Index(rest, p.magic)
			if at < 0 {
				break
			}
			rest = rest[at:]
			elf, err := unpack(p.program, rest)
			if errors.Is(err, exec.ErrNotFound) {
				return nil, err
			}
			if bytes.HasPrefix(elf, []byte("\x7fELF")) {
				return elf, nil
			}
		}
	}
	return nil, errors.New("there is no packed ELF file in it")
}

// unpack gives what comes out before the program meets what is behind the kernel,
// which it takes for damage.
func unpack(program string, data []byte) ([]byte, error) {
	cmd := exec.Command(program, "-dc")
	cmd.Stdin = bytes.NewReader(data)
	return cmd.Output()
}
