//go:build tools

// Package critest pins the programs that the harness builds from modules:
// crictl, the packages behind critest (whose own package is nothing but a
// test, and so cannot be imported) and the ginkgo command, which critest
// starts by name for -parallel and which must be of the same version as the
// library. The build tag is never set; the file exists for go.mod.
package critest

import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
