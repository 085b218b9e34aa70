package main

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/admin"
	"github.com/cri-mini/cri-mini/image"
)

// meter shows a pull on standard error: on a terminal a bar for each layer, drawn again and again, elsewhere a line for
// each layer that is done. With JSON it prints every event, the result included, on standard output.
type meter struct {
	json     bool
	terminal bool
	rates    rates
	drawn    map[string][]string // lines of each pull
	order    []string
	height   int // lines on the terminal that the next drawing replaces
	told     map[digest.Digest]bool
	began    time.Time
	last     *image.PullStatus
}

func newMeter(json bool) *meter {
	return &meter{json: json, terminal: isTerminal(os.Stderr), rates: rates{}, drawn: map[string][]string{}, told: map[digest.Digest]bool{}, began: time.Now()}
}

func (m *meter) see(e admin.Event) {
	if m.json {
		_ = printLine(e)
		return
	}
	p := e.Progress
	if p == nil {
		return
	}
	m.last = p
	m.rates.see(p)
	if m.terminal {
		m.draw(p)
		return
	}
	for _, l := range p.Layers {
		if l.Stage == image.StageDone && !m.told[l.Digest] {
			m.told[l.Digest] = true
			fmt.Fprintf(os.Stderr, "layer %s: done, %s\n", short(l.Digest.String()), inUnits(l.Size))
		}
	}
}

// draw replaces what it drew before.
func (m *meter) draw(p *image.PullStatus) {
	if _, ok := m.drawn[p.Ref]; !ok {
		m.order = append(m.order, p.Ref)
	}
	m.drawn[p.Ref] = pullLines(*p, m.rates)
	width := columns()
	var out strings.Builder
	if m.height > 0 {
		fmt.Fprintf(&out, "\x1b[%dA\x1b[J", m.height)
	}
	m.height = 0
	for _, ref := range m.order {
		for _, line := range m.drawn[ref] {
			out.WriteString(cut(line, width) + "\n") // one that wrapped would be two
			m.height++
		}
	}
	fmt.Fprint(os.Stderr, out.String())
}

// end prints the result.
func (m *meter) end(images []*admin.Image, err error) error {
	if err != nil {
		return err
	}
	if m.json {
		return printLine(admin.Event{Images: images})
	}
	if m.last != nil {
		t := m.last.Took
		fmt.Fprintf(os.Stderr, "%s in all: resolve %s, and summed over layers fetch %s, decompress %s, write %s\n", took(time.Since(m.began)), took(t.Resolve), took(t.Fetch), took(t.Decompress), took(t.Write))
	}
	for _, i := range images {
		fmt.Println(strings.TrimSpace(i.ID + " " + strings.Join(i.Tags, " ")))
	}
	return nil
}

// rates are bytes per second of each layer's blob, over the last second or so.
type rates map[digest.Digest]*rate

type rate struct {
	at    time.Time
	bytes int64
	per   float64
}

func (r rates) see(p *image.PullStatus) {
	now := time.Now()
	for _, l := range p.Layers {
		k := r[l.Digest]
		if k == nil {
			r[l.Digest] = &rate{at: now, bytes: l.Fetched}
			continue
		}
		if dt := now.Sub(k.at).Seconds(); dt >= 0.5 {
			k.per = float64(l.Fetched-k.bytes) / dt
			k.at, k.bytes = now, l.Fetched
		}
	}
}

// barWidth is that of a layer's bar, in columns.
const barWidth = 24

// pullLines words a pull and each of its layers.
func pullLines(p image.PullStatus, r rates) []string {
	lines := []string{fmt.Sprintf("%s  %s  %s", p.Ref, p.Stage, took(time.Since(p.Started)))}
	for _, l := range p.Layers {
		part := 0.0
		switch {
		case l.Stage == image.StageDone:
			part = 1
		case l.Size > 0:
			part = min(1, float64(l.Fetched)/float64(l.Size))
		}
		full := int(part * barWidth)
		line := fmt.Sprintf("  %s [%s%s] %9s of %9s  %-7s", short(l.Digest.String()), strings.Repeat("#", full), strings.Repeat(".", barWidth-full), inUnits(l.Fetched), inUnits(max(0, l.Size)), l.Stage)
		if k := r[l.Digest]; k != nil && l.Stage == image.StageFetch && k.per > 0 {
			line += "  " + inUnits(int64(k.per)) + "/s"
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return lines
}

func took(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// columns of the terminal on standard error.
func columns() int {
	if ws, err := unix.IoctlGetWinsize(int(os.Stderr.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
		return int(ws.Col)
	}
	return 80
}

func cut(line string, width int) string {
	for utf8.RuneCountInString(line) >= width {
		_, n := utf8.DecodeLastRuneInString(line)
		line = line[:len(line)-n]
	}
	return line
}
