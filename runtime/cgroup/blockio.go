package cgroup

import (
	"fmt"
	"strconv"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// blockIO sets weights (10 to 1000) and rates per device (a second; 0 = none).
func (b *builder) blockIO(io *specs.LinuxBlockIO) {
	if io == nil {
		return
	}
	rates := len(io.ThrottleReadBpsDevice) + len(io.ThrottleWriteBpsDevice) + len(io.ThrottleReadIOPSDevice) + len(io.ThrottleWriteIOPSDevice)
	if deref(io.Weight) == 0 && deref(io.LeafWeight) == 0 && len(io.WeightDevice) == 0 && rates == 0 {
		return
	}
	if b.tree.find("blkio") != nil {
		b.blockIOV1(io)
	} else if _, ok := b.on("io", "blockIO"); ok {
		b.blockIOV2(io)
	}
}

// blockIOV1 uses the names of the BFQ scheduler, the only one that has weights
// since Linux 5.0; leaf weights went with CFQ.
func (b *builder) blockIOV1(io *specs.LinuxBlockIO) {
	if n := deref(io.Weight); n != 0 {
		b.add(setting{controller: "blkio", file: "blkio.bfq.weight", value: strconv.Itoa(int(n)), initial: "100"})
	}
	if n := deref(io.LeafWeight); n != 0 {
		b.add(setting{controller: "blkio", file: "blkio.leaf_weight", value: strconv.Itoa(int(n))})
	}
	for _, d := range io.WeightDevice {
		dev := device(d.LinuxBlockIODevice)
		if n := deref(d.Weight); n != 0 {
			b.add(setting{controller: "blkio", file: "blkio.bfq.weight_device", keyed: true, value: fmt.Sprintf("%s %d", dev, n), reset: dev + " default"})
		}
		if n := deref(d.LeafWeight); n != 0 {
			b.add(setting{controller: "blkio", file: "blkio.leaf_weight_device", keyed: true, value: fmt.Sprintf("%s %d", dev, n), reset: dev + " default"})
		}
	}
	for _, list := range rateLists(io) {
		for _, d := range list.devices {
			dev := device(d.LinuxBlockIODevice)
			b.add(setting{controller: "blkio", file: list.v1, keyed: true, value: fmt.Sprintf("%s %d", dev, d.Rate), reset: dev + " 0"})
		}
	}
}

func (b *builder) blockIOV2(io *specs.LinuxBlockIO) {
	if n := deref(io.Weight); n != 0 {
		// BFQ has the range of config.json, io.weight one of its own. Only one
		// of the files may be there, so each is optional; a weight is a hint.
		b.add(setting{controller: "io", file: "io.bfq.weight", value: strconv.Itoa(int(n)), optional: true})
		b.add(setting{
			controller: "io", file: "io.weight", keyed: true, optional: true,
			value: fmt.Sprintf("default %d", cgroups.ConvertBlkIOToIOWeightValue(n)), reset: "default 100",
		})
	}
	for _, d := range io.WeightDevice {
		if n := deref(d.Weight); n != 0 {
			dev := device(d.LinuxBlockIODevice)
			b.add(setting{controller: "io", file: "io.bfq.weight", keyed: true, value: fmt.Sprintf("%s %d", dev, n), reset: dev + " default"})
		}
	}
	for _, list := range rateLists(io) {
		for _, d := range list.devices {
			dev, rate := device(d.LinuxBlockIODevice), "max"
			if d.Rate != 0 {
				rate = strconv.FormatUint(d.Rate, 10)
			}
			b.add(setting{
				controller: "io", file: "io.max", keyed: true,
				value: fmt.Sprintf("%s %s=%s", dev, list.v2, rate), reset: dev + " rbps=max wbps=max riops=max wiops=max",
			})
		}
	}
}

// rateList is one kind of rate with its v1 file and its key in v2's io.max.
type rateList struct {
	devices []specs.LinuxThrottleDevice
	v1, v2  string
}

func rateLists(io *specs.LinuxBlockIO) []rateList {
	return []rateList{
		{io.ThrottleReadBpsDevice, "blkio.throttle.read_bps_device", "rbps"},
		{io.ThrottleWriteBpsDevice, "blkio.throttle.write_bps_device", "wbps"},
		{io.ThrottleReadIOPSDevice, "blkio.throttle.read_iops_device", "riops"},
		{io.ThrottleWriteIOPSDevice, "blkio.throttle.write_iops_device", "wiops"},
	}
}

func device(d specs.LinuxBlockIODevice) string { return fmt.Sprintf("%d:%d", d.Major, d.Minor) }
