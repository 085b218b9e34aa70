package netns

import (
	"fmt"
	"math"
	"math/big"
	"strings"
)

// Annotations that Kubernetes defines for traffic shaping.
const (
	annotationIngress = "kubernetes.io/ingress-bandwidth"
	annotationEgress  = "kubernetes.io/egress-bandwidth"
)

// Bandwidth is CNI's bandwidth capability: bits per second, and bits.
type Bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

// burst is what the other runtimes pass: as much as the plugin allows.
const burst = math.MaxInt32

func bandwidth(annotations map[string]string) (*Bandwidth, error) {
	var b Bandwidth
	for key, rate := range map[string]*uint64{annotationIngress: &b.IngressRate, annotationEgress: &b.EgressRate} {
		v, ok := annotations[key]
		if !ok {
			continue
		}
		n, err := parseRate(v)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", key, err)
		}
		*rate = n
	}
	if b == (Bandwidth{}) {
		return nil, nil
	}
	if b.IngressRate > 0 {
		b.IngressBurst = burst
	}
	if b.EgressRate > 0 {
		b.EgressBurst = burst
	}
	return &b, nil
}

var suffixes = []struct {
	name  string
	scale int64
}{
	{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}, {"Pi", 1 << 50},
	{"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"P", 1e15},
}

// parseRate reads a Kubernetes quantity of bits per second, between 1k and 1P,
// the limits of kubelet's own check.
func parseRate(s string) (uint64, error) {
	number, scale := s, int64(1)
	for _, x := range suffixes {
		if rest, ok := strings.CutSuffix(s, x.name); ok {
			number, scale = rest, x.scale
			break
		}
	}
	if len(number) > 32 || strings.ContainsAny(number, "/_xXpP") {
		return 0, fmt.Errorf("%q is no quantity such as 10M", s)
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, fmt.Errorf("%q is no quantity such as 10M", s)
	}
	r.Mul(r, new(big.Rat).SetInt64(scale))
	if r.Cmp(big.NewRat(1e3, 1)) < 0 || r.Cmp(big.NewRat(1e15, 1)) > 0 {
		return 0, fmt.Errorf("%q is not between 1k and 1P bits per second", s)
	}
	return new(big.Int).Quo(r.Num(), r.Denom()).Uint64(), nil
}
