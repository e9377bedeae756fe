// libfabric as one would write to it by hand: fi_writemsg with the provider's own default completion, which
// says that the source may be used again, not that the bytes have landed. The figure that a rail is held
// against. Behind the contract of a rail, so that the same loop measures both; it keeps none of the
// promises of that contract about failures. One thread.
#pragma once

#include <memory>
#include <string>

#include "fabric/fabric.h"

namespace switchyard::bench {

// `provider` is a provider of libfabric, "shm" among them. Errors: unsupported, io.
Result<std::shared_ptr<fabric::Fabric>> open_plain_libfabric(const std::string& provider,
                                                             const std::string& host);

}  // namespace switchyard::bench
