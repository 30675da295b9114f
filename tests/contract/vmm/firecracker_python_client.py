"""A program for the interpreter of another environment, where PyPI's firecracker-python is.

Configures and starts a microVM through its `Api` class, and prints what it was answered as JSON.
Arguments: the socket, a kernel, an initrd, a command line, a drive.
"""

import json
import sys

from firecracker.api import Api
from firecracker.exceptions import APIError

socket, kernel, initrd, boot_args, drive = sys.argv[1:]
api = Api(socket)
told = {"before": api.describe.get().json(), "version": api.version.get().json()}
api.machine_config.put(vcpu_count=1, mem_size_mib=256)
api.machine_config.patch(mem_size_mib=128)
api.boot.put(kernel_image_path=kernel, initrd_path=initrd, boot_args=boot_args)
api.drive.put(drive_id="data", path_on_host=drive, is_root_device=False, is_read_only=False)
api.mmds.put(greeting="hello")
api.mmds.patch(name="vm")
told["mmds"] = api.mmds.get().json()
told["config"] = api.vm_config.get().json()
try:
    api.machine_config.put(vcpu_count=0, mem_size_mib=128)
except APIError as error:
    told["fault"] = str(error)
api.actions.put(action_type="InstanceStart")
api.vm.patch(state="Paused")
told["paused"] = api.describe.get().json()
api.vm.patch(state="Resumed")
told["after"] = api.describe.get().json()
api.close()
print(json.dumps(told))
