// Which rails this machine has, and which one "auto" takes.
#include "fabric/fabric.h"
#include "fabric/ofi_fabric.h"
#include "fabric/shm_fabric.h"

namespace switchyard::fabric {
namespace {

struct Known {
  const char* name;
  const char* provider;
};

// Best network first. `sockets` is left out: it loses the second write of a pair.
constexpr Known kNetworks[] = {
    {"efa", "efa"}, {"verbs;ofi_rxm", "verbs;ofi_rxm"}, {"net", "net"}, {"tcp;ofi_rxm", "tcp;ofi_rxm"}};

}  // namespace

Result<std::shared_ptr<Fabric>> open_fabric(const std::string& name, const FabricOptions& options) {
  if (name == "shm") return open_shm_fabric(options);
  return open_ofi_fabric(name, name, options);
}

std::vector<FabricReport> list_fabrics(const std::string& host) {
  std::vector<FabricReport> reports{probe_shm_fabric()};
  for (const Known& known : kNetworks)
    reports.push_back(probe_ofi_provider(known.provider, known.name, host));
  return reports;
}

Result<std::string> automatic_fabric(const std::string& host) {
  const FabricReport shared = probe_shm_fabric();
  if (shared.usable && (host.starts_with("127.") || host == "::1")) return shared.name;
  std::string why;
  for (const Known& known : kNetworks) {
    FabricReport report = probe_ofi_provider(known.provider, known.name, host);
    if (report.usable) return report.name;
    why += "; " + report.detail;
  }
  return fail(ErrorCode::unsupported, "no fabric works at {}: {}{}", host, shared.detail, why);
}

}  // namespace switchyard::fabric
