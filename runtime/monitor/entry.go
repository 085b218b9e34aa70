package monitor

import (
	"bytes"
	"time"
)

// appendEntries formats output as the kubelet reads it (k8s.io/cri-api, LogConfig): time, stream, tag F for
// the end of a line or P for a part of one, text. The last entry of b is P unless b ends in a newline; at the
// end of a stream the kubelet shows a lone P as it is.
func appendEntries(out []byte, at time.Time, stream string, b []byte) []byte {
	var stamp [64]byte
	head := at.AppendFormat(stamp[:0], "2006-01-02T15:04:05.000000000Z07:00")
	head = append(append(append(head, ' '), stream...), ' ')
	for len(b) > 0 {
		line, tag := b, byte('P')
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, tag = b[:i], 'F'
		}
		if len(line) > maxLine {
			line, tag = line[:maxLine], 'P'
		}
		out = append(append(out, head...), tag, ' ')
		out = append(append(out, line...), '\n')
		b = b[len(line):]
		if tag == 'F' {
			b = b[1:]
		}
	}
	return out
}
