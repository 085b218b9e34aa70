package cgroup

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
	"github.com/opencontainers/cgroups/systemd"
)

// property is one of a unit's (systemd.resource-control(5)), as D-Bus has it: (sv).
type property struct {
	Name  string
	Value dbus.Variant
}

func newProperty(name string, value any) property { return property{name, dbus.MakeVariant(value)} }

// Versions of systemd from which on it has a property.
const (
	systemdIdle      = 252 // CPUWeight=idle
	systemdOOMPolicy = 253 // OOMPolicy of a scope
)

// limitProperties says in systemd's words what the settings are. What it has no
// words for is in the files alone: systemd leaves those as they are. A file that
// counts for a property and is not among the settings is read by now.
//
// systemd may write these values again at any time, rounded its own way (a quota
// to whole percents of a CPU), or its defaults where it was told nothing.
func limitProperties(list []setting, version int, now func(file string) string) []property {
	values := map[string]string{}
	var order []string
	for _, s := range list {
		value := s.value
		if s.merge != nil {
			value = s.merge(now(s.file))
		}
		if _, twice := values[s.file]; !twice {
			order = append(order, s.file)
		}
		values[s.file] = value
	}
	get := func(file string) string {
		if v, ok := values[file]; ok {
			return v
		}
		return now(file)
	}
	var out []property
	quota := false
	for _, file := range order {
		value := values[file]
		switch file {
		case "cpu.max":
			limit, period, _ := strings.Cut(value, " ")
			out = append(out, quotaProperties(limit, period)...)
		case "cpu.cfs_quota_us", "cpu.cfs_period_us":
			if !quota {
				out = append(out, quotaProperties(get("cpu.cfs_quota_us"), get("cpu.cfs_period_us"))...)
			}
			quota = true
		case "cpuset.cpus", "cpuset.mems":
			bits, err := systemd.RangeToBits(value)
			if err == nil || value == "" { // "" is no choice: that of the slice
				out = append(out, newProperty(numberProperties[file], append([]byte{}, bits...)))
			}
		case "cpu.idle":
			out = append(out, idleProperty(value, version)...)
		case "cpu.weight":
			if values["cpu.idle"] == "1" {
				continue // an idle group has none
			}
			fallthrough
		default:
			name, ok := numberProperties[file]
			if n, err := parseLimit(strings.TrimPrefix(value, "default ")); ok && err == nil {
				out = append(out, newProperty(name, n))
			}
		}
	}
	return out
}

// numberProperties are the properties with the unit of their file, by file. The
// first group is of v2, the second of v1, the third of both.
var numberProperties = map[string]string{
	"cpu.weight":      "CPUWeight",
	"memory.max":      "MemoryMax",
	"memory.high":     "MemoryHigh",
	"memory.low":      "MemoryLow",
	"memory.min":      "MemoryMin",
	"memory.swap.max": "MemorySwapMax",
	"io.weight":       "IOWeight",

	"cpu.shares":            "CPUShares",
	"memory.limit_in_bytes": "MemoryLimit",
	"blkio.bfq.weight":      "BlockIOWeight",

	"pids.max":    "TasksMax",
	"cpuset.cpus": "AllowedCPUs",
	"cpuset.mems": "AllowedMemoryNodes",
}

// quotaProperties turns a quota in a period, both in microseconds, into CPU time
// for each second. systemd counts in whole percents, and rounds down, so this
// rounds up: a child's quota in the files must be within its parent's.
func quotaProperties(quota, period string) []property {
	const second, percent = 1_000_000, 10_000
	each, err := strconv.ParseUint(period, 10, 64)
	if err != nil || each == 0 {
		each = 100_000
	}
	out := []property{newProperty("CPUQuotaPeriodUSec", each)}
	n, err := strconv.ParseUint(quota, 10, 63)
	if err != nil || n == 0 || n > math.MaxUint64/second { // max, -1
		return append(out, newProperty("CPUQuotaPerSecUSec", uint64(math.MaxUint64)))
	}
	time := (n*second/each + percent - 1) / percent * percent
	return append(out, newProperty("CPUQuotaPerSecUSec", max(time, percent)))
}

// idleProperty: a weight of 0 is systemd's word for idle; 100 is what the kernel
// gives a group that is idle no longer.
func idleProperty(value string, version int) []property {
	switch {
	case version < systemdIdle:
		return nil
	case value == "1":
		return []property{newProperty("CPUWeight", uint64(0))}
	}
	return []property{newProperty("CPUWeight", uint64(100))}
}

// oomPolicy is what becomes of a scope one of whose processes was killed for
// memory. It can be said at the start only.
func oomPolicy(list []setting, version int) []property {
	for _, s := range list {
		if s.file == "memory.oom.group" && version >= systemdOOMPolicy {
			policy := map[string]string{"0": "continue", "1": "kill"}[strings.TrimSpace(s.value)]
			if policy != "" {
				return []property{newProperty("OOMPolicy", policy)}
			}
		}
	}
	return nil
}

// needsVersion reports whether the properties of the settings depend on it.
func needsVersion(list []setting) bool {
	for _, s := range list {
		if s.file == "cpu.idle" || s.file == "memory.oom.group" {
			return true
		}
	}
	return false
}

// parseProperty reads "Name=value" with the value in GVariant's text form. A name
// that ends in Sec is a number of seconds, which systemd takes in microseconds.
func parseProperty(text string) (property, error) {
	name, value, _ := strings.Cut(text, "=")
	v, err := dbus.ParseVariant(value, dbus.Signature{})
	if err != nil {
		return property{}, fmt.Errorf("property %s: %q is not a value in GVariant's text form, such as 'text' or uint64 5: %w", name, value, err)
	}
	short, seconds := strings.CutSuffix(name, "Sec")
	if !seconds || short == "" || short[len(short)-1] < 'a' || short[len(short)-1] > 'z' {
		return property{name, v}, nil
	}
	micros, err := microseconds(v.Value())
	if err != nil {
		return property{}, fmt.Errorf("property %s: %w", name, err)
	}
	return newProperty(short+"USec", micros), nil
}

func microseconds(value any) (uint64, error) {
	n, err := strconv.ParseFloat(fmt.Sprint(value), 64)
	if err != nil || n < 0 || n >= math.MaxUint64/1e6 {
		return 0, fmt.Errorf("%v is not a number of seconds", value)
	}
	return uint64(n * 1e6), nil
}
