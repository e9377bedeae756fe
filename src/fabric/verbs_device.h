// An RDMA device, opened at one of its ports: which device, port and GID to take, and what all the objects of
// a rail share. Held by the rail and by its regions; closes the device when the last of them goes. Immutable
// once open, so any thread may read it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fabric/fabric.h"
#include "fabric/verbs_library.h"

namespace switchyard::fabric {

// An object of libibverbs, with the function that destroys it.
template <class T>
using VerbsHandle = std::unique_ptr<T, int (*)(T*)>;

// "NAME[:PORT[:GID_INDEX]]", or nothing for any.
struct VerbsDeviceName {
  std::string name;
  unsigned port = 0;   // 0: any
  int gid_index = -1;  // -1: by kind and address
};
// Errors: invalid.
Result<VerbsDeviceName> parse_verbs_device(std::string_view text);

// A port that a rail may use, with the GID that it would have.
struct VerbsPort {
  std::uint8_t number = 0;
  ibv_port_attr attributes{};
  bool ethernet = false;
  int gid_index = 0;
  ibv_gid gid{};
  std::string gid_text;         // as an address
  bool gid_is_at_host = false;  // it is the address that was asked for
};

struct VerbsDevice {
  // The device and port of options.device; without a name the first that has a GID of address options.host,
  // else the first that is active. Errors: invalid, not_found, unsupported, exhausted, io.
  static Result<std::shared_ptr<VerbsDevice>> open(const FabricOptions& options);

  std::uint64_t bytes_per_second() const;

  VerbsLibrary verbs;
  std::string name;
  VerbsHandle<ibv_context> context{nullptr, nullptr};
  VerbsHandle<ibv_pd> domain{nullptr, nullptr};
  ibv_device_attr limits{};
  VerbsPort port;
};

// Reads the port anew. Errors: unsupported (down, or without a usable GID), io.
Result<VerbsPort> query_verbs_port(const VerbsLibrary& verbs, ibv_context* context, unsigned number,
                                   int gid_index, const std::string& host);

// Names of every active port that a rail can use, as FabricOptions.device takes them.
std::vector<std::string> list_verbs_devices();
FabricReport probe_verbs_fabric(const std::string& host);

}  // namespace switchyard::fabric
