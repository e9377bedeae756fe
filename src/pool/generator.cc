#include "pool/generator.h"

namespace switchyard::pool {

std::string_view to_string(ModelState state) {
  switch (state) {
    case ModelState::preparing:
      return "preparing";
    case ModelState::ready:
      return "ready";
    case ModelState::failed:
      return "failed";
    case ModelState::removing:
      return "removing";
  }
  return "unknown";
}

}  // namespace switchyard::pool
