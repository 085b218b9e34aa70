package compile

import "fmt"

// bad words what is wrong with a field of the specification.
func bad(field, format string, args ...any) error {
	return fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...))
}

// unsupported is for what the specification allows and this runtime does not do yet.
func unsupported(field string) error { return bad(field, "not supported yet") }

func at(list string, i int, field string) string {
	if field == "" {
		return fmt.Sprintf("%s[%d]", list, i)
	}
	return fmt.Sprintf("%s[%d].%s", list, i, field)
}
