"""A py4j gateway that leaves no socket open.

py4j leaves the socket of a refused connection to the garbage collector. It also opens new
connections for Java objects that are finalized after the gateway was closed: to a port that may
belong to another JVM by then. py4j comes with the simulators' packages, so this module is imported
only when a JVM starts.
"""

from typing import Any

from py4j.java_gateway import (
    GatewayClient,
    GatewayConnection,
    GatewayParameters,
    JavaGateway,
)


class Gateway(JavaGateway):
    """A gateway that sends nothing after `close`, and closes every socket.

    Args:
        port: port that the JVM listens on.
        token: authentication token that the JVM expects.
        timeout_s: wall-clock limit of one call, in seconds.
    """

    def __init__(self, *, port: int, token: str, timeout_s: float):
        super().__init__(
            gateway_parameters=GatewayParameters(
                port=port, auth_token=token, read_timeout=timeout_s
            )
        )

    def close(self) -> None:
        """Close all connections; Java objects finalized later are not reported to the JVM."""
        self._gateway_client.is_connected = False
        self._gateway_client.close()

    def _create_gateway_client(self) -> Any:
        return _Client(gateway_parameters=self.gateway_parameters)


class _Client(GatewayClient):
    """A client that closes the connections it could not open."""

    def _create_connection(self) -> Any:
        connection = GatewayConnection(self.gateway_parameters, self.gateway_property)
        try:
            connection.start()
        except BaseException:
            # `connection.close()` needs a stream, which a refused connection does not have.
            if hasattr(connection, "stream"):
                connection.stream.close()
            connection.socket.close()
            raise
        return connection

    def _give_back_connection(self, connection: Any) -> None:
        if self.is_connected:
            super()._give_back_connection(connection)
        else:  # the gateway was closed while another thread was in a call
            connection.close()
