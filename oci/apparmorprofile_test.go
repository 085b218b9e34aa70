package oci

import (
	"strings"
	"testing"
)

// TestAppArmorProfile looks at the text; what the kernel makes of it is tested where there is AppArmor (test/api).
func TestAppArmorProfile(t *testing.T) {
	text := AppArmorProfile("x-y", false)
	for _, want := range []string{"profile x-y flags=", " peer=x-y,\n", "\n  deny mount,\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("the profile lacks %q", want)
		}
	}
	if strings.Contains(text, "NAME") || strings.Contains(text, "abi <") || strings.Count(text, "{") != strings.Count(text, "}") {
		t.Errorf("left over:\n%s", text)
	}
	if abi := AppArmorProfile("x-y", true); abi != "abi <abi/3.0>,\n\n"+text {
		t.Errorf("with the ABI:\n%s", abi)
	}
}
