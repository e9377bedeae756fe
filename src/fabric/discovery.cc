// Which rails this machine has, and which one "auto" takes.
#include "fabric/fabric.h"
#include "fabric/loopback.h"
#include "fabric/ofi_fabric.h"
#include "fabric/shm_fabric.h"
#include "fabric/verbs_device.h"
#include "fabric/verbs_fabric.h"

namespace switchyard::fabric {
namespace {

constexpr std::string_view kVerbs = "verbs";

// Best network first: all but `verbs` are providers of libfabric. `sockets` is left out: it loses the second
// write of a pair.
constexpr const char* kNetworks[] = {"efa", "verbs", "verbs;ofi_rxm", "net", "tcp;ofi_rxm"};

FabricReport probe(const char* name, const std::string& host) {
  return name == kVerbs ? probe_verbs_fabric(host) : probe_ofi_provider(name, name, host);
}

}  // namespace

Result<std::shared_ptr<Fabric>> open_fabric(const std::string& name, const FabricOptions& options) {
  if (name == "shm") return open_shm_fabric(options);
  if (name == kVerbs) return open_verbs_fabric(options);
  return open_ofi_fabric(name, name, options);
}

std::vector<FabricReport> list_fabrics(const std::string& host) {
  std::vector<FabricReport> reports{probe_shm_fabric()};
  for (const char* name : kNetworks) reports.push_back(probe(name, host));
  return reports;
}

Result<std::string> automatic_fabric(const std::string& host) {
  const FabricReport shared = probe_shm_fabric();
  if (shared.usable && is_loopback(host)) return shared.name;
  std::string why;
  for (const char* name : kNetworks) {
    FabricReport report = probe(name, host);
    if (report.usable) return report.name;
    why += "; " + report.detail;
  }
  return fail(ErrorCode::unsupported, "no fabric works at {}: {}{}", host, shared.detail, why);
}

std::vector<std::string> list_devices(const std::string& fabric) {
  if (fabric == kVerbs) return list_verbs_devices();
  return {};
}

}  // namespace switchyard::fabric
