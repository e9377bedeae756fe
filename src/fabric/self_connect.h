// Whether this machine reaches itself at an address: what a provider says of itself does not show an
// interface that is down. Any thread; a fifth of a second at most.
#pragma once

#include <string>

#include "switchyard/result.h"

namespace switchyard::fabric {

// Errors: unsupported, with the reason.
Status connect_to_self(const std::string& host);

}  // namespace switchyard::fabric
