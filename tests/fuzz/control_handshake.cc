// Whatever a stranger says during the handshake: never outside of the input, and never believed without the
// key. The first byte chooses the side, the settings, and whether records or TLS are spoken.
#include "transfer/control_handshake.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "transfer/tls_stream.h"

namespace {

using namespace switchyard::transfer;

void speak_records(ControlHandshake::Side side, bool with_key, std::span<const std::byte> rest) {
  auto security = ControlSecurity::create(with_key ? "a key of sixteen bytes or more" : "", {}).value();
  ControlHandshake handshake(security, side, "127.0.0.1:1");
  std::vector<std::byte> out;
  if (side == ControlHandshake::Side::dialler && !handshake.begin(out)) std::abort();
  for (;;) {
    auto header = parse_header(rest, kMaxHandshakeBytes);
    if (!header || !*header || rest.size() < kRecordHeaderBytes + (*header)->payload_bytes) return;
    auto record = parse_record((*header)->type, rest.subspan(kRecordHeaderBytes, (*header)->payload_bytes));
    if (!record) return;
    auto over = handshake.take(*record, out);
    if (!over) {
      static_cast<void>(ControlHandshake::refusal(over.error()));
      return;
    }
    if (*over && with_key) std::abort();
    // One greeting and one proof.
    if (out.size() > 256) std::abort();
    rest = rest.subspan(kRecordHeaderBytes + (*header)->payload_bytes);
  }
}

void speak_tls(TlsStream::Role role, std::span<const std::byte> rest) {
  static const auto context = TlsContext::with_keys().value();
  auto stream = TlsStream::create(*context, role, Mac{1, 2, 3}).value();
  std::vector<std::byte> plain, wire;
  if (role == TlsStream::Role::client && !stream->receive({}, plain, wire)) std::abort();
  while (!rest.empty()) {
    const std::size_t chunk = std::min<std::size_t>(rest.size(), 97);
    if (!stream->receive(rest.first(chunk), plain, wire)) break;
    rest = rest.subspan(chunk);
  }
  if (stream->established() || !plain.empty()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto rest = std::as_bytes(std::span(data, size)).subspan(1);
  const bool first = (data[0] & 1) != 0;
  if ((data[0] & 4) != 0) {
    speak_tls(first ? TlsStream::Role::client : TlsStream::Role::server, rest);
  } else {
    speak_records(first ? ControlHandshake::Side::dialler : ControlHandshake::Side::acceptor,
                  (data[0] & 2) != 0, rest);
  }
  return 0;
}
