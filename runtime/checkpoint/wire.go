package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
)

// The images are lists of protocol buffers. Only a dozen fields of four messages matter here, so they are read by their
// numbers (criu's images/*.proto), by a reader small enough to be looked through, and fuzzed.

// Magic numbers of image files (criu/include/magic.h): one that all have, then one of the kind, of which each entry is
// led by its size.
const (
	magicCommon  = 0x54564319
	magicService = 0x55105940
)

// maxEntry bounds one entry. Those that are read are a few hundred bytes.
const maxEntry = 4 << 20

var errImage = errors.New("is no image of criu's that can be read")

// entries reads the messages of a file.
func entries(path string) ([][]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := splitEntries(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

func splitEntries(data []byte) ([][]byte, error) {
	if len(data) < 4 {
		return nil, errImage
	}
	if first := binary.LittleEndian.Uint32(data); first == magicCommon || first == magicService {
		data = data[4:]
	}
	if len(data) < 4 {
		return nil, errImage
	}
	var list [][]byte
	for data = data[4:]; len(data) > 0; {
		if len(data) < 4 {
			return nil, errImage
		}
		size := binary.LittleEndian.Uint32(data)
		if size > maxEntry || uint64(size) > uint64(len(data)-4) {
			return nil, errImage
		}
		list, data = append(list, data[4:4+size]), data[4+size:]
	}
	return list, nil
}

// field is one field of a message: a number, or bytes that may be a text, a message or packed numbers.
type field struct {
	number  uint64
	value   uint64
	bytes   []byte
	isBytes bool
}

// each calls use for each field of a message (protobuf.dev, Encoding). A field that is there twice, but for the repeated
// ones, is refused: criu's reader would take the last of two numbers and merge two messages, and what was checked would
// not be what is restored.
func each(message []byte, repeated []uint64, use func(field) error) error {
	seen := map[uint64]bool{}
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 || tag>>3 == 0 {
			return errImage
		}
		message = message[n:]
		f := field{number: tag >> 3}
		if seen[f.number] && !slices.Contains(repeated, f.number) {
			return errImage
		}
		seen[f.number] = true
		switch tag & 7 {
		case 0:
			if f.value, n = binary.Uvarint(message); n <= 0 {
				return errImage
			}
			message = message[n:]
		case 1, 5:
			width := map[uint64]int{1: 8, 5: 4}[tag&7]
			if len(message) < width {
				return errImage
			}
			message = message[width:]
			continue // no field that matters is of fixed width
		case 2:
			size, n := binary.Uvarint(message)
			if n <= 0 || size > uint64(len(message)-n) {
				return errImage
			}
			f.bytes, f.isBytes = message[n:n+int(size)], true
			message = message[n+int(size):]
		default:
			return errImage
		}
		if err := use(f); err != nil {
			return err
		}
	}
	return nil
}

// numbers gives the values of a repeated number, packed or not.
func (f field) numbers() ([]uint32, error) {
	if !f.isBytes {
		return []uint32{uint32(f.value)}, nil
	}
	var list []uint32
	for b := f.bytes; len(b) > 0; {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errImage
		}
		list, b = append(list, uint32(v)), b[n:]
	}
	return list, nil
}
