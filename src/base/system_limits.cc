#include "base/system_limits.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <cerrno>
#include <system_error>

namespace switchyard {
namespace {

std::uint64_t soft_limit(__rlimit_resource_t resource) {
  rlimit limit{};
  return getrlimit(resource, &limit) == 0 ? limit.rlim_cur : RLIM_INFINITY;
}

}  // namespace

std::uint64_t raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  if (limit.rlim_cur < limit.rlim_max) {
    const rlimit raised{limit.rlim_max, limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) return raised.rlim_cur;
  }
  return limit.rlim_cur;
}

std::string error_text(int error) {
  std::string text = std::generic_category().message(error);
  if (error == EMFILE)
    return text + fmt::format(" (the limit is {}: raise it with ulimit -n)", soft_limit(RLIMIT_NOFILE));
  const std::uint64_t memory = soft_limit(RLIMIT_AS);
  if (error == ENOMEM && memory != RLIM_INFINITY)
    return text + fmt::format(" (the limit is {} KiB: raise it with ulimit -v)", memory >> 10);
  return text;
}

}  // namespace switchyard
