// How many files and sockets this process may have open. A process-wide setting: for main() and for tests.
#pragma once

#include <cstdint>

namespace switchyard {

// Raises the soft limit as far as the hard one allows, and returns it.
std::uint64_t raise_descriptor_limit();

}  // namespace switchyard
