package host

// Reference returns the facts of one fixed machine, for golden files and other
// tests that must not depend on where they run: kernel 6.18 with every call,
// hybrid cgroups, no CAP_SYS_RESOURCE, no AppArmor and no SELinux.
func Reference() Facts {
	return Facts{
		Kernel:              Kernel{Major: 6, Minor: 18},
		Arch:                "amd64",
		PageSize:            4096,
		CPUs:                2,
		MemoryBytes:         24 << 30,
		BootID:              "00000000-0000-4000-8000-000000000000",
		Caps:                0x1ff_feff_ffff, // all 41 but CAP_SYS_RESOURCE (24)
		LastCap:             40,
		NofileHard:          20000,
		OverlayLowerdirPlus: true,
		OverlayLayerFD:      true,
		IdmapMounts:         true,
		RecursiveReadonly:   true,
		UserNS:              true,
		TimeNS:              true,
		CgroupNS:            true,
		PidfdInfo:           true,
		Seccomp:             true,
		SeccompLib:          "2.5.4",
		SeccompActions: []string{
			"kill_process", "kill_thread", "trap", "errno", "user_notif", "trace", "log", "allow",
		},
		Cgroup:         referenceCgroup(),
		RunTmpfs:       false,
		SwapAccounting: true,
		HugepageSizes:  []string{"1GB", "2MB"},
	}
}

// referenceCgroup has the resource controllers on v1 and hugetlb on v2.
func referenceCgroup() Cgroup {
	cg := Cgroup{
		Mode:               CgroupHybrid,
		Mounts:             map[string]string{},
		Unified:            "/sys/fs/cgroup/unified",
		UnifiedControllers: []string{"hugetlb"},
		Own:                map[string]string{"": "/"},
	}
	for _, c := range []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"} {
		cg.Mounts[c] = "/sys/fs/cgroup/" + c
		cg.Own[c] = "/"
	}
	cg.Mounts["name=systemd"] = "/sys/fs/cgroup/systemd"
	cg.Own["name=systemd"] = "/"
	return cg
}
