#!/bin/busybox sh
# The first process of the virtual machine: the host's root below a file system in memory, a shared directory to tell in.
b=/bin/busybox
$b mount -t devtmpfs dev /dev; $b mount -t proc proc /proc; $b mount -t sysfs sys /sys
for m in $($b cat /mod/order); do
  case $m in
    # A disk without a device: every request takes 2 ms.
    null_blk) $b insmod /mod/$m.ko queue_mode=2 irqmode=2 completion_nsec=2000000 gb=1 nr_devices=1;;
    *) $b insmod /mod/$m.ko;;
  esac 2>/dev/kmsg
done
$b mkdir -p /low /share /up /new
o=trans=virtio,version=9p2000.L,msize=512000
$b mount -t 9p -o $o,ro,cache=loose root /low && $b mount -t 9p -o $o,cache=none share /share ||
  { echo "no root" >/dev/kmsg; $b reboot -f; }
$b mount -t tmpfs -o mode=755 up /up; $b mkdir /up/u /up/w
$b mount -t overlay -o lowerdir=/low,upperdir=/up/u,workdir=/up/w root /new || $b reboot -f
for d in dev proc sys; do $b mount --move /$d /new/$d; done
cd /new
$b mkdir -p dev/pts dev/shm run tmp .share
$b mount -t devpts devpts dev/pts; $b mount -t tmpfs shm dev/shm; $b mount -t tmpfs run run
$b mount -t securityfs securityfs sys/kernel/security; $b mount -t tracefs tracefs sys/kernel/tracing; $b mount -t bpf bpf sys/fs/bpf; $b mount -t cgroup2 cgroup2 sys/fs/cgroup
$b mount --move /share .share
$b ln -sfn /proc/self/fd dev/fd
$b ip link set lo up 2>/dev/null || $b ifconfig lo 127.0.0.1 up
exec $b switch_root /new /bin/sh /.share/run </dev/null >/dev/kmsg 2>&1
