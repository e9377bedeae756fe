// Writes between processes of one host: one copy, made by the kernel (process_vm_writev) on the writer's
// core, straight into the target's memory. The reader takes no part, so a reader that is busy, stopped or
// dead delays nobody. Immediates go through rings in memory that the reader shares; a reader that sleeps is
// woken through a pipe.
//
// No lock lies in shared memory: whatever instruction a process is killed at, the others go on. (libfabric's
// own shared memory keeps spin locks there; a peer killed while it holds one stops every process that talks
// to it.)
//
// Needs: Linux, the same user, and one PID namespace. Opening a rail allows any process of the same user to
// attach to this one (prctl PR_SET_PTRACER) where the Yama security module would forbid it.
#pragma once

#include <memory>

#include "fabric/fabric.h"

namespace switchyard::fabric {

Result<std::shared_ptr<Fabric>> open_shm_fabric(const FabricOptions& options);
FabricReport probe_shm_fabric();

}  // namespace switchyard::fabric
