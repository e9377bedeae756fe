// Rails of libfabric: remote writes that carry 32 bits to the other side. A path has an endpoint of its own
// (ofi_path.h).
#pragma once

#include <memory>

#include "fabric/fabric.h"

namespace switchyard::fabric {

// `provider` as libfabric names it. Errors: unsupported, io.
Result<std::shared_ptr<Fabric>> open_ofi_fabric(const std::string& provider, const std::string& shown_name,
                                                const FabricOptions& options);

// Whether the provider offers what a rail needs, without opening it.
FabricReport probe_ofi_provider(const std::string& provider, const std::string& shown_name,
                                const std::string& host);

}  // namespace switchyard::fabric
