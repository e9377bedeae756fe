// Rails of RDMA devices: ConnectX and others on InfiniBand and RoCE, and the kernel's Soft-RoCE. Reliable
// connections, one queue pair for each path; one shared queue of receives and one completion queue for the
// rail.
#pragma once

#include <memory>

#include "fabric/fabric.h"

namespace switchyard::fabric {

// options.device: "NAME[:PORT[:GID_INDEX]]". Errors: invalid, unsupported (with what to do), exhausted, io.
Result<std::shared_ptr<Fabric>> open_verbs_fabric(const FabricOptions& options);

}  // namespace switchyard::fabric
