#include "pool/role.h"

namespace switchyard::pool {

std::string_view to_string(Role role) {
  switch (role) {
    case Role::prefill:
      return "prefill";
    case Role::decode:
      return "decode";
    case Role::unified:
      return "unified";
  }
  return "unknown";
}

Result<Role> parse_role(std::string_view text) {
  for (const Role role : {Role::prefill, Role::decode, Role::unified}) {
    if (text == to_string(role)) return role;
  }
  return fail(ErrorCode::invalid, "'{}' is no role; use prefill, decode or unified", text);
}

}  // namespace switchyard::pool
