"""Which system calls a container may make, group by group, and why the others are closed.

Linux has about 370 system calls on x86-64. A container needs most of them: those that act on its own processes, files
and memory. The rest act on the machine as a whole, on things that no namespace separates, or are large young parts
of Linux in which holes are found every year. They are closed to every program, or open only with the capability that
the kernel would ask for anyway, so that a hole in the kernel's own check stays out of reach.

The lists have the same effect as the profile that Docker documents, with three differences, each on the strict side: 32-bit
entry points are closed (`labkit.isolation.seccomp`), ``socket`` takes only the families a container can use, and
``io_uring`` is closed as in Docker 25 and later. Names are those of all machines; a machine ignores what it does not have.

Leaves out: per-program profiles (recorded with strace or SCMP_ACT_LOG).
See: syscalls(2), https://docs.docker.com/engine/security/seccomp/.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALLOWED", "CLOSED", "Group"]


@dataclass(frozen=True, slots=True)
class Group:
    """System calls that belong together. Any of ``capabilities`` opens a closed group; with none, nothing does."""

    topic: str
    why: str
    calls: tuple[str, ...]
    capabilities: tuple[str, ...] = ()


def _group(topic: str, why: str, calls: str, *capabilities: str) -> Group:
    return Group(topic, why, tuple(calls.split()), capabilities)


ALLOWED: tuple[Group, ...] = (
    _group(
        "programs and processes",
        "A process may start, replace, wait for and end its own kind; the PID namespace bounds whom it can reach.",
        """execve execveat exit exit_group fork vfork wait4 waitid waitpid kill tkill tgkill getpid getppid gettid getpgid getpgrp
        getsid setpgid setsid prctl arch_prctl set_tid_address restart_syscall pidfd_open pidfd_send_signal ptrace
        process_vm_readv process_vm_writev process_mrelease getrusage times uname sysinfo getcpu rseq membarrier
        set_thread_area get_thread_area set_tls get_tls modify_ldt seccomp landlock_create_ruleset landlock_add_rule
        landlock_restrict_self riscv_flush_icache cacheflush""",
    ),
    _group(
        "scheduling and limits",
        "They change the caller and its children, within the rlimits and the cgroup.",
        """sched_yield sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max
        sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_getaffinity
        sched_setattr sched_getattr getpriority setpriority ioprio_set ioprio_get getrlimit setrlimit prlimit64 ugetrlimit""",
    ),
    _group(
        "signals",
        "Signals reach only processes that the PID namespace shows and the user may signal.",
        """rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigtimedwait_time64 rt_sigqueueinfo
        rt_tgsigqueueinfo rt_sigsuspend sigaltstack signal sigaction sigprocmask sigpending sigsuspend sigreturn pause signalfd
        signalfd4""",
    ),
    _group(
        "memory",
        "A process's own address space; the cgroup counts the pages.",
        """brk mmap mmap2 munmap mremap mprotect msync mincore madvise mlock mlock2 munlock mlockall munlockall
        remap_file_pages memfd_create memfd_secret pkey_alloc pkey_free pkey_mprotect map_shadow_stack""",
    ),
    _group(
        "files",
        "The mount namespace says which files there are, permissions say what may be done with them.",
        """open openat openat2 creat close close_range read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2
        lseek _llseek dup dup2 dup3 fcntl fcntl64 flock fsync fdatasync sync syncfs sync_file_range truncate truncate64
        ftruncate ftruncate64 fallocate fadvise64 fadvise64_64 readahead copy_file_range sendfile sendfile64 splice tee
        vmsplice ioctl stat fstat lstat stat64 fstat64 lstat64 fstatat64 newfstatat statx statfs fstatfs statfs64 fstatfs64 access
        faccessat faccessat2 umask cachestat""",
    ),
    _group(
        "names and folders",
        "Names inside the container's own tree.",
        """getcwd chdir fchdir mkdir mkdirat rmdir rename renameat renameat2 link linkat unlink unlinkat symlink symlinkat readlink
        readlinkat getdents getdents64 mknod mknodat utime utimes utimensat utimensat_time64 futimesat inotify_init
        inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark name_to_handle_at""",
    ),
    _group(
        "owners and attributes",
        "Ids are those of the user namespace; the file system checks the rest.",
        """chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat chown32 fchown32 lchown32 setxattr lsetxattr fsetxattr
        getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr""",
    ),
    _group(
        "users and capabilities",
        "A process may only give up power here, or change among the ids of its user namespace.",
        """getuid geteuid getgid getegid getuid32 geteuid32 getgid32 getegid32 setuid setgid setuid32 setgid32 setreuid setregid
        setreuid32 setregid32 setresuid setresgid setresuid32 setresgid32 getresuid getresgid getresuid32 getresgid32
        setfsuid setfsgid setfsuid32 setfsgid32 getgroups setgroups getgroups32 setgroups32 capget capset""",
    ),
    _group(
        "waiting for events",
        "They only wait.",
        """poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 epoll_ctl epoll_wait
        epoll_pwait epoll_pwait2 epoll_ctl_old epoll_wait_old eventfd eventfd2""",
    ),
    _group(
        "time",
        "Reading clocks, sleeping, own timers. Clocks that Linux will not let a container set refuse in the kernel.",
        """time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep
        clock_nanosleep_time64 nanosleep alarm getitimer setitimer timer_create timer_settime timer_settime64
        timer_gettime timer_gettime64 timer_getoverrun timer_delete timerfd_create timerfd_settime timerfd_settime64
        timerfd_gettime timerfd_gettime64 adjtimex clock_adjtime clock_adjtime64""",
    ),
    _group(
        "locks between threads",
        "Every threaded program needs them.",
        """futex futex_time64 futex_waitv futex_wake futex_wait futex_requeue set_robust_list get_robust_list""",
    ),
    _group(
        "sockets",
        "The network namespace says which interfaces and ports there are. ``socket`` itself has conditions of its own.",
        """socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt send
        sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64""",
    ),
    _group(
        "messages and shared memory",
        "The IPC namespace says which queues, semaphores and segments there are.",
        """pipe pipe2 ipc shmget shmat shmctl shmdt semget semop semtimedop semtimedop_time64 semctl msgget msgsnd msgrcv msgctl
        mq_open mq_unlink mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64 mq_notify
        mq_getsetattr""",
    ),
    _group(
        "asynchronous input and output",
        "The old interface, small and long-tested; databases use it.",
        "io_setup io_destroy io_getevents io_submit io_cancel io_pgetevents io_pgetevents_time64",
    ),
    _group("random numbers", "Nothing to fear.", "getrandom"),
)

CLOSED: tuple[Group, ...] = (
    _group(
        "new namespaces and mounts",
        "With them a container could build containers, and reach code of the kernel that is written for root alone.",
        """unshare setns mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount fspick sethostname
        setdomainname quotactl quotactl_fd fanotify_init lookup_dcookie""",
        "CAP_SYS_ADMIN",
    ),
    _group("the root folder", "An own root mount makes pivot_root needless.", "pivot_root"),
    _group("changing the root", "Escapes from a chroot use another one.", "chroot", "CAP_SYS_CHROOT"),
    _group(
        "key rings",
        "The kernel's key rings belong to user ids and sessions, not to any namespace: one container could read another's keys.",
        "add_key request_key keyctl",
    ),
    _group(
        "eBPF",
        "Loads programs into the kernel; its verifier has been fooled before.",
        "bpf",
        "CAP_BPF",
        "CAP_SYS_ADMIN",
    ),
    _group(
        "performance counters",
        "Measures other processes and the kernel; side channels, and a long list of holes.",
        "perf_event_open",
        "CAP_PERFMON",
        "CAP_SYS_ADMIN",
    ),
    _group(
        "page faults in user space",
        "Lets an attacker stop the kernel in the middle of copying memory, which makes races easy to win.",
        "userfaultfd",
    ),
    _group(
        "io_uring",
        "Makes calls without making them: what a ring is asked to do passes by every seccomp filter.",
        "io_uring_setup io_uring_enter io_uring_register",
    ),
    _group("another kernel", "Boots a new kernel from the running one.", "kexec_load kexec_file_load"),
    _group("restarting the machine", "The machine is not the container's.", "reboot", "CAP_SYS_BOOT"),
    _group(
        "kernel modules",
        "Code of one's own in the kernel is the end of all separation.",
        "init_module finit_module delete_module create_module query_module get_kernel_syms",
        "CAP_SYS_MODULE",
    ),
    _group(
        "the machine's clock",
        "There is one wall clock for all; a time namespace has none of its own.",
        "settimeofday stime clock_settime clock_settime64",
        "CAP_SYS_TIME",
    ),
    _group("hardware ports", "Talks to devices past the kernel.", "ioperm iopl", "CAP_SYS_RAWIO"),
    _group("swap space and accounting files", "Settings of the whole machine.", "swapon swapoff"),
    _group("process accounting", "One file records every process of the machine.", "acct", "CAP_SYS_PACCT"),
    _group(
        "the kernel's log",
        "It tells of the whole machine, addresses included.",
        "syslog",
        "CAP_SYSLOG",
        "CAP_SYS_ADMIN",
    ),
    _group("hanging up a terminal", "Only login programs do it.", "vhangup", "CAP_SYS_TTY_CONFIG"),
    _group(
        "opening files by handle",
        "A handle is a number, and it opens any file of the file system, mounted here or not (the 'Shocker' escape of 2014).",
        "open_by_handle_at",
        "CAP_DAC_READ_SEARCH",
    ),
    _group(
        "looking into other processes",
        "Beyond what ptrace, which the kernel checks well since 4.8, already gives.",
        "kcmp pidfd_getfd process_madvise",
        "CAP_SYS_PTRACE",
    ),
    _group(
        "placing memory on nodes",
        "Moves memory between the machine's nodes, also under others' feet.",
        "mbind set_mempolicy get_mempolicy set_mempolicy_home_node migrate_pages move_pages",
        "CAP_SYS_NICE",
    ),
    _group(
        "leftovers",
        "Ancient, replaced or never finished; nothing calls them but an attack.",
        """_sysctl sysfs ustat uselib nfsservctl afs_syscall getpmsg putpmsg security tuxcall vserver vm86 vm86old
        bdflush socketcall oldstat oldfstat oldlstat olduname oldolduname sgetmask ssetmask nice
        break ftime gtty stty idle lock mpx prof profil readdir ulimit""",
    ),
)


def main() -> int:
    """Print which system calls a container may make, which are closed, and why."""
    for title, groups in (("open", ALLOWED), ("closed", CLOSED)):
        print(f"{title}: {sum(len(group.calls) for group in groups)} calls in {len(groups)} groups")
        for group in groups:
            opens = f" (opened by {' or '.join(group.capabilities)})" if group.capabilities else ""
            print(f"  {group.topic}{opens}: {group.why}")
            print(f"    {' '.join(group.calls[:8])}{' ...' if len(group.calls) > 8 else ''}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
