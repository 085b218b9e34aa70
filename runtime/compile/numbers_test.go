package compile

import (
	"encoding/binary"
	"fmt"
	"testing"
)

func TestParseNumbers(t *testing.T) {
	for list, want := range map[string]string{
		"0": "1", "0-3,7": "8f", "3,1": "a", "64": "0 1", "0,127-127": "1 8000000000000000", " 1 , 2": "6",
	} {
		mask, err := parseNumbers("f", list, 1024)
		got := ""
		for i := 0; i+8 <= len(mask); i += 8 {
			got += fmt.Sprintf("%x ", binary.LittleEndian.Uint64(mask[i:]))
		}
		if err != nil || got != want+" " {
			t.Errorf("%q: %q, %v; want %q", list, got, err, want)
		}
	}
}

// FuzzNumbers: a list that is taken is a mask of whole words that is not longer than it has to be.
func FuzzNumbers(f *testing.F) {
	for _, s := range []string{"0-3,7", "", ",", "-", "1-0", "8191", "8192", "4294967296", "0-4294967295", "1,,2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		mask, err := parseNumbers("f", list, maxCPUs)
		if err != nil {
			return
		}
		if n := len(mask); n == 0 || n%8 != 0 || n > maxCPUs/8 || binary.LittleEndian.Uint64(mask[n-8:]) == 0 {
			t.Errorf("%q: mask %x", list, mask)
		}
	})
}
