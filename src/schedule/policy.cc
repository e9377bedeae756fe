#include "schedule/policy.h"

#include <array>
#include <utility>

#include "schedule/quota_policy.h"
#include "schedule/request_policy.h"
#include "schedule/slack_policy.h"
#include "schedule/static_policy.h"

namespace switchyard::schedule {
namespace {

constexpr std::array<std::pair<std::string_view, PolicyKind>, 4> kNames = {{{"quota", PolicyKind::quota},
                                                                            {"request", PolicyKind::request},
                                                                            {"static", PolicyKind::fixed},
                                                                            {"slack", PolicyKind::slack}}};

}  // namespace

std::string_view to_string(ShedReason reason) {
  switch (reason) {
    case ShedReason::rate:
      return "rate";
    case ShedReason::queue:
      return "queue";
    case ShedReason::overload:
      return "overload";
    case ShedReason::too_large:
      return "too_large";
    case ShedReason::no_instance:
      return "no_instance";
    case ShedReason::no_place:
      return "no_place";
  }
  return "unknown";
}

std::string_view to_string(PolicyKind kind) {
  for (const auto& [name, value] : kNames) {
    if (value == kind) return name;
  }
  return "unknown";
}

Result<PolicyKind> parse_policy(std::string_view name) {
  for (const auto& [known, kind] : kNames) {
    if (known == name) return kind;
  }
  return fail(ErrorCode::invalid, "there is no policy '{}'; use quota, request, static or slack", name);
}

Result<std::unique_ptr<Policy>> make_policy(PolicyKind kind, const PolicyOptions& options,
                                            const Costs& costs) {
  if (options.max_rows == 0 || options.max_prefill_tokens == 0 || options.group_requests == 0 ||
      options.longest_quota <= Nanos{0} || options.admission.max_waiting == 0) {
    return fail(ErrorCode::invalid,
                "policy options: rows, prefill tokens, group size, quota and queue are to be above 0");
  }
  switch (kind) {
    case PolicyKind::quota:
      return std::make_unique<QuotaPolicy>(options, costs);
    case PolicyKind::request:
      return std::make_unique<RequestPolicy>(options, costs);
    case PolicyKind::fixed:
      return std::make_unique<StaticPolicy>(options, costs);
    case PolicyKind::slack:
      return std::make_unique<SlackPolicy>(options, costs);
  }
  return fail(ErrorCode::invalid, "there is no such policy");
}

}  // namespace switchyard::schedule
