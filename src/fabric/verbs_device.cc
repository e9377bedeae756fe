#include "fabric/verbs_device.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace switchyard::fabric {
namespace {

struct DeviceList {
  explicit DeviceList(const VerbsLibrary& library) : verbs(library) {
    int found = 0;
    list = verbs.get_device_list(&found);
    count = list == nullptr ? 0 : found;
    error = list == nullptr ? errno : 0;
  }
  ~DeviceList() {
    if (list != nullptr) verbs.free_device_list(list);
  }
  DeviceList(const DeviceList&) = delete;
  DeviceList& operator=(const DeviceList&) = delete;

  const VerbsLibrary& verbs;
  ibv_device** list = nullptr;
  int count = 0;
  int error = 0;
};

constexpr std::string_view kNoDevices =
    "no RDMA device here: load its driver and ib_uverbs; in a container pass /dev/infiniband in and lift the "
    "limit of locked memory (--device /dev/infiniband --ulimit memlock=-1)";

bool is_ipv4(const ibv_gid& gid) {
  static constexpr std::uint8_t kPrefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(gid.raw, kPrefix, sizeof kPrefix) == 0;
}

bool is_zero(const ibv_gid& gid) { return gid.global.subnet_prefix == 0 && gid.global.interface_id == 0; }

bool is_link_local(const ibv_gid& gid) { return gid.raw[0] == 0xfe && (gid.raw[1] & 0xc0) == 0x80; }

std::string address_text(const ibv_gid& gid) {
  char text[INET6_ADDRSTRLEN] = {};
  if (is_ipv4(gid))
    inet_ntop(AF_INET, gid.raw + 12, text, sizeof text);
  else
    inet_ntop(AF_INET6, gid.raw, text, sizeof text);
  return text;
}

// How much a GID of an Ethernet port is to be preferred; 0: not at all.
int rank_of(const ibv_gid_entry& entry, bool at_host) {
  if (is_zero(entry.gid)) return 0;
  int rank = 1;
  if (!is_link_local(entry.gid)) rank += 1;
  if (is_ipv4(entry.gid)) rank += 1;
  if (entry.gid_type == IBV_GID_TYPE_ROCE_V2) rank += 4;  // routable, and what switches classify
  if (at_host) rank += 8;
  return rank;
}

Status choose_gid(const VerbsLibrary& verbs, ibv_context* context, VerbsPort& port, int wanted,
                  const std::string& host) {
  int best = 0;
  for (int index = 0; index < port.attributes.gid_tbl_len; ++index) {
    if (wanted >= 0 && index != wanted) continue;
    ibv_gid_entry entry{};
    if (verbs.query_gid(context, port.number, static_cast<std::uint32_t>(index), &entry, 0, sizeof entry) !=
        0)
      continue;
    const std::string text = address_text(entry.gid);
    const bool at_host = text == host;
    const int rank = is_zero(entry.gid) ? 0 : port.ethernet ? rank_of(entry, at_host) : 1;
    if (rank <= best) continue;
    best = rank;
    port.gid_index = index;
    port.gid = entry.gid;
    port.gid_text = text;
    port.gid_is_at_host = at_host;
  }
  if (best != 0) return {};
  if (wanted >= 0) return fail(ErrorCode::unsupported, "port {} has no GID of index {}", port.number, wanted);
  return fail(ErrorCode::unsupported, "port {} has no GID; give its network interface an address",
              port.number);
}

bool can_connect(const ibv_device& device) {
  // Others (iWARP, EFA) have no reliable connections that two tokens can set up.
  return device.node_type == IBV_NODE_CA && device.transport_type == IBV_TRANSPORT_IB;
}

template <class Number>
bool parse_number(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

struct Candidate {
  std::string name;
  VerbsHandle<ibv_context> context{nullptr, nullptr};
  ibv_device_attr limits{};
  VerbsPort port;
};

// Every port that fits, opened; and for those that do not, why.
std::vector<Candidate> find_ports(const VerbsLibrary& verbs, const VerbsDeviceName& wanted,
                                  const std::string& host, std::string& why_not) {
  std::vector<Candidate> found;
  const DeviceList devices(verbs);
  auto add_reason = [&](std::string_view device, std::string_view reason) {
    why_not += fmt::format("{}{}: {}", why_not.empty() ? "" : "; ", device, reason);
  };
  for (int i = 0; i < devices.count; ++i) {
    ibv_device* device = devices.list[i];
    const std::string name = verbs.get_device_name(device);
    if (!wanted.name.empty() && name != wanted.name) continue;
    if (!can_connect(*device)) {
      add_reason(name, "not InfiniBand and not RoCE");
      continue;
    }
    ibv_device_attr limits{};
    unsigned ports = 1;
    for (unsigned number = 1; number <= ports; ++number) {
      if (wanted.port != 0 && number != wanted.port && number != 1) continue;
      VerbsHandle<ibv_context> context(verbs.open_device(device), verbs.close_device);
      if (!context || verbs.query_device(context.get(), &limits) != 0) {
        add_reason(name, fmt::format("cannot be opened: {}", strerror(errno)));
        break;
      }
      ports = limits.phys_port_cnt;
      if (wanted.port != 0 && number != wanted.port) continue;
      auto port = query_verbs_port(verbs, context.get(), number, wanted.gid_index, host);
      if (!port) {
        add_reason(name, port.error().message);
        continue;
      }
      found.push_back({name, std::move(context), limits, std::move(*port)});
    }
    if (wanted.port > ports) add_reason(name, fmt::format("has no port {}", wanted.port));
  }
  if (devices.count == 0) {
    why_not = devices.error == 0 || devices.error == ENOSYS
                  ? std::string(kNoDevices)
                  : fmt::format("RDMA devices cannot be listed: {}", strerror(devices.error));
  } else if (found.empty() && why_not.empty()) {
    why_not = fmt::format("there is no device '{}'", wanted.name);
  }
  return found;
}

}  // namespace

Result<VerbsDeviceName> parse_verbs_device(std::string_view text) {
  VerbsDeviceName parsed;
  const auto bad = [&] {
    return fail(ErrorCode::invalid, "fabric 'verbs': device '{}' is not NAME[:PORT[:GID_INDEX]]", text);
  };
  const auto first = text.find(':');
  parsed.name = text.substr(0, first);
  if (first == std::string_view::npos) return parsed;
  if (parsed.name.empty()) return bad();
  std::string_view rest = text.substr(first + 1);
  const auto second = rest.find(':');
  if (!parse_number(rest.substr(0, second), parsed.port) || parsed.port == 0 || parsed.port > 255)
    return bad();
  if (second == std::string_view::npos) return parsed;
  if (!parse_number(rest.substr(second + 1), parsed.gid_index) || parsed.gid_index < 0) return bad();
  return parsed;
}

Result<VerbsPort> query_verbs_port(const VerbsLibrary& verbs, ibv_context* context, unsigned number,
                                   int gid_index, const std::string& host) {
  VerbsPort port;
  port.number = static_cast<std::uint8_t>(number);
  verbs_context* operations = verbs_get_ctx_op(context, query_port);
  if (operations == nullptr)
    return fail(ErrorCode::unsupported, "its provider is too old to describe port {}", number);
  if (const int error =
          operations->query_port(context, port.number, &port.attributes, sizeof port.attributes);
      error != 0) {
    return fail(ErrorCode::io, "port {} cannot be queried: {}", number, strerror(error));
  }
  port.ethernet = port.attributes.link_layer == IBV_LINK_LAYER_ETHERNET;
  if (port.attributes.state != IBV_PORT_ACTIVE) {
    return fail(ErrorCode::unsupported, "port {} is not active; {}", number,
                port.ethernet ? "set its network interface up and check the cable"
                              : "check the cable and the subnet manager");
  }
  if (auto chosen = choose_gid(verbs, context, port, gid_index, host); !chosen) return pass(chosen.error());
  return port;
}

Result<std::shared_ptr<VerbsDevice>> VerbsDevice::open(const FabricOptions& options) {
  auto wanted = parse_verbs_device(options.device);
  if (!wanted) return pass(wanted.error());
  auto verbs = VerbsLibrary::load();
  if (!verbs) return fail_at("fabric 'verbs'", verbs.error());
  std::string why_not;
  auto found = find_ports(*verbs, *wanted, options.host, why_not);
  if (found.empty()) return fail(ErrorCode::unsupported, "fabric 'verbs': {}", why_not);
  const auto at_host =
      std::find_if(found.begin(), found.end(), [](const auto& each) { return each.port.gid_is_at_host; });
  Candidate& chosen = at_host != found.end() ? *at_host : found.front();

  auto device = std::make_shared<VerbsDevice>();
  device->verbs = *verbs;
  device->name = chosen.name;
  device->context = std::move(chosen.context);
  device->limits = chosen.limits;
  device->port = std::move(chosen.port);
  device->domain =
      VerbsHandle<ibv_pd>(device->verbs.alloc_pd(device->context.get()), device->verbs.dealloc_pd);
  if (!device->domain) {
    return fail(ErrorCode::exhausted, "fabric 'verbs': {} has no protection domain left: {}", device->name,
                strerror(errno));
  }
  return device;
}

std::uint64_t VerbsDevice::bytes_per_second() const {
  // Payload of one lane by the port's code of speed. The slowest three are signalled with 10 bits a byte on
  // InfiniBand.
  const bool eight_of_ten = !port.ethernet;
  double gigabits = 0;
  switch (port.attributes.active_speed) {
    case 1:
      gigabits = eight_of_ten ? 2 : 2.5;
      break;
    case 2:
      gigabits = eight_of_ten ? 4 : 5;
      break;
    case 4:
      gigabits = eight_of_ten ? 8 : 10;
      break;
    case 8:
      gigabits = 10;
      break;
    case 16:
      gigabits = 13.64;
      break;
    case 32:
      gigabits = 25;
      break;
    case 64:
      gigabits = 50;
      break;
    case 128:
      gigabits = 100;
      break;
    default:
      return 0;
  }
  double lanes = 0;
  switch (port.attributes.active_width) {
    case 1:
      lanes = 1;
      break;
    case 2:
      lanes = 4;
      break;
    case 4:
      lanes = 8;
      break;
    case 8:
      lanes = 12;
      break;
    case 16:
      lanes = 2;
      break;
    default:
      return 0;
  }
  return static_cast<std::uint64_t>(gigabits * lanes * 1e9 / 8);
}

std::vector<std::string> list_verbs_devices() {
  auto verbs = VerbsLibrary::load();
  if (!verbs) return {};
  std::vector<std::string> names;
  std::string why_not;
  for (const Candidate& found : find_ports(*verbs, {}, {}, why_not)) {
    names.push_back(found.limits.phys_port_cnt == 1 ? found.name
                                                    : fmt::format("{}:{}", found.name, found.port.number));
  }
  return names;
}

FabricReport probe_verbs_fabric(const std::string& host) {
  FabricReport report{.name = "verbs"};
  auto verbs = VerbsLibrary::load();
  if (!verbs) {
    report.detail = verbs.error().message;
    return report;
  }
  std::string why_not;
  const auto found = find_ports(*verbs, {}, host, why_not);
  report.usable = !found.empty();
  for (const Candidate& each : found) {
    report.detail += fmt::format("{}{} port {}, {}, GID {} {}", report.detail.empty() ? "" : "; ", each.name,
                                 each.port.number, each.port.ethernet ? "RoCE" : "InfiniBand",
                                 each.port.gid_index, each.port.gid_text);
  }
  if (!why_not.empty()) report.detail += fmt::format("{}{}", report.detail.empty() ? "" : "; ", why_not);
  return report;
}

}  // namespace switchyard::fabric
