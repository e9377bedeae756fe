// Bytes that nobody guesses: ids, keys, nonces. From the kernel; any thread; about a microsecond.
#pragma once

#include <cstddef>
#include <span>

#include "switchyard/result.h"

namespace switchyard {

// Errors: io (a sandbox that forbids the call).
Status fill_random(std::span<std::byte> bytes);

}  // namespace switchyard
