"""Hosts on one machine for mpirun: network namespaces behind tests/slow_switch.cpp, which gives their
network a latency and a rate. Needs root.

mpirun starts its daemons with this file in the place of ssh: emulated_hosts.py ADDRESS COMMAND..."""
import os
import pathlib
import shutil
import subprocess
import sys

PREFIX = "minke-h"
SUBNET = "10.79.0"
MTU = 9000  # each frame passes the switch, which takes the processor that ranks compute on


def why_skipped():
    """Why there can be no emulated hosts here, or nothing."""
    if os.geteuid() != 0:
        return "emulated hosts need root"
    for program, package in (("ip", "iproute2"), ("nsenter", "util-linux"), ("taskset", "util-linux")):
        if not shutil.which(program):
            return f"there is no {program} (Debian: {package})"
    return "" if pathlib.Path("/dev/net/tun").exists() else "there is no /dev/net/tun"


def address(host):
    return f"{SUBNET}.{host + 1}"


def cores(host):
    """Two hosts share the machine; one whose ranks ran on the other's cores would be no host."""
    share = max(1, os.cpu_count() // 2)
    first = host * share % os.cpu_count()
    return f"{first}-{first + share - 1}"


def inside(host, *command):
    """The command as one that runs in a host, on its cores and under its name."""
    name = f"{PREFIX}{host}"
    return ["taskset", "-c", cores(host), "nsenter", f"--net=/var/run/netns/{name}", "unshare", "--uts", "sh", "-c",
            'hostname "$0"; exec "$@"', name, *command]


# What mpirun needs to know of them, beside the addresses. Messages go at once, not after an answer to their
# announcement, which takes two latencies; and no more is on its way than the switch keeps.
SETTINGS = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,vader,tcp", "OMPI_MCA_btl_tcp_if_include": "eth0",
            "OMPI_MCA_btl_tcp_sndbuf": "524288", "OMPI_MCA_btl_tcp_rcvbuf": "524288",
            "OMPI_MCA_btl_tcp_eager_limit": "2097152", "OMPI_MCA_btl_tcp_rndv_eager_limit": "2097152",
            "OMPI_MCA_btl_tcp_max_send_size": "2097152", "OMPI_MCA_oob_tcp_if_include": "eth0", "OMPI_MCA_hwloc_base_binding_policy": "none",
            "OMPI_MCA_plm_rsh_agent": f"{sys.executable} {os.path.abspath(__file__)}"}


class Hosts:
    """They stand while this is entered."""

    def __init__(self, switch, count, latency_us, mbit):
        self.command = [switch, f"{PREFIX}sw", str(count), str(latency_us), str(mbit)]
        self.count = count
        self.switch = None

    def __enter__(self):
        self.remove()
        try:
            # Before other work of this machine, since a real network does not wait for it.
            self.switch = subprocess.Popen(["nice", "-n", "-20", *self.command], stdout=subprocess.PIPE, text=True)
            if self.switch.stdout.readline() != "ready\n":
                raise RuntimeError("the switch did not start")
            for host in range(self.count):
                name, port = f"{PREFIX}{host}", f"{PREFIX}sw{host}"
                for command in (f"netns add {name}", f"-n {name} link set lo up", f"link set {port} netns {name}",
                                f"-n {name} link set {port} name eth0 mtu {MTU}",
                                f"-n {name} addr add {address(host)}/24 dev eth0", f"-n {name} link set eth0 up"):
                    subprocess.run(["ip", *command.split()], check=True)
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        self.remove()

    def remove(self):
        if self.switch:
            self.switch.kill()
            self.switch.wait()
        for host in range(self.count):
            if pathlib.Path(f"/var/run/netns/{PREFIX}{host}").exists():
                subprocess.run(["ip", "netns", "del", f"{PREFIX}{host}"], check=True)


if __name__ == "__main__":
    host_of = {address(host): host for host in range(250)}
    command = " ".join(sys.argv[2:])  # as ssh does it: for the shell there
    there = inside(host_of[sys.argv[1]], "sh", "-c", command)
    os.execvp(there[0], there)
