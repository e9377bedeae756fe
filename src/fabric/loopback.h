// Whether this machine reaches itself at a loopback address: what a provider says of itself does not show an
// interface that is down. Any thread; a fifth of a second at most.
#pragma once

#include <string>

#include "switchyard/result.h"

namespace switchyard::fabric {

bool is_loopback(const std::string& host);

// Connects to a socket at `host`; other addresses than loopback's are not looked at. Errors: unsupported.
Status check_loopback(const std::string& host);

}  // namespace switchyard::fabric
