#!/bin/sh
# Runs inside mmdebstrap's mount and user namespaces, outside the new root, while its package lists are still there:
#   hook.sh KERNEL_PACKAGE ROOT
# Downloads the kernel that the package stands for, without installing it, and leaves a list of what is installed.
set -eu
package=$1 root=$2
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
mkdir -p "$root/.gondolin"
real=$(apt-cache depends --important "$package" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
if [ -z "$real" ]; then
	echo "E: no kernel behind the package $package" >&2
	exit 1
fi
echo "I: downloading $real..." >&2
# As root apt would drop to a user that may not write here, and say so on every run.
cd "$root/.gondolin"
apt-get -o APT::Sandbox::User=root --quiet download "$real"
dpkg-query --admindir="$root/var/lib/dpkg" --show --showformat='${Package} ${Version}\n' >packages
